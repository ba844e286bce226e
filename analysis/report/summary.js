"use strict";
const startSummary = () => {};
