"use strict";
const startCards = () => {};
