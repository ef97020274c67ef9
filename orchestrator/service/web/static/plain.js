// A page that does not change: only its times do.
import { tick } from "./times.js";
import { copyButtons } from "./copy.js";

tick();
copyButtons();
