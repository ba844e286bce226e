"use strict";
const startCell = () => {};
