// A page on which only the times change.
import { tick } from "./times.js";
import { copyButtons } from "./copy.js";

tick();
copyButtons();
