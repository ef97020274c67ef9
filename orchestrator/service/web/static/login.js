// Who comes by a link of another site is not known at first: the browser keeps the cookie back.

const answer = await fetch("/v1/statistics", { cache: "no-store" });
if (answer.ok) location.replace(document.querySelector("[name=next]").value);
