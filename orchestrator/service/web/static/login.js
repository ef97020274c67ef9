// After a link from another site the browser withholds the cookie at first: check for it, and go on.

const answer = await fetch("/v1/statistics", { cache: "no-store" });
if (answer.ok) location.replace(document.querySelector("[name=next]").value);
