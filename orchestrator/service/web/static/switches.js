// Buttons that are on or off, and stay so in this browser.

export function makeSwitch(id, usual, changed) {
  const button = document.getElementById(id), key = `pikaci-${id}`;
  let on = usual;
  try {
    on = (localStorage.getItem(key) ?? String(usual)) === "true";
  } catch { /* storage is forbidden: the switch is forgotten */ }
  const set = () => {
    button.setAttribute("aria-pressed", String(on));
    changed(on);
  };
  button.addEventListener("click", () => {
    on = !on;
    try {
      localStorage.setItem(key, String(on));
    } catch { /* the same */ }
    set();
  });
  button.hidden = false;
  set();
}
