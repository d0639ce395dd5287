// Asks again and again for what is known now, and for the newest frame.
"use strict";
(() => {
  const live = document.getElementById("live");
  const now = document.getElementById("now");
  const picture = document.getElementById("frame");
  const spoken = document.getElementById("status");
  const OFTEN = 400; // ms
  const SELDOM = 3000; // of what has ended, of a page that nobody sees
  let html = "";
  let shown = picture.hidden ? -1 : Number(live.dataset.number);

  async function ask() {
    let wait = document.hidden ? SELDOM : OFTEN;
    try {
      const answer = await fetch(live.dataset.state, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const state = await answer.json();
      if (state.html !== html) now.innerHTML = html = state.html; // escaped by the server
      if (state.frame !== shown) {
        shown = state.frame;
        picture.src = `${live.dataset.frame}?n=${shown}`;
        picture.hidden = false;
      }
      if (spoken.textContent !== state.spoken) spoken.textContent = state.spoken;
      if (state.ended) wait = SELDOM;
    } catch {
      spoken.textContent = live.dataset.lost;
      wait = SELDOM;
    }
    setTimeout(ask, wait);
  }
  ask();
})();
