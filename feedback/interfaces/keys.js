// Label Studio takes no Ctrl+Enter from a text box, and no hotkey after a click on a choice. On trueup's screens it does.
window.addEventListener("keydown", (event) => {
  const box = event.target;
  const inside = box instanceof Element && /^(INPUT|TEXTAREA)$/.test(box.tagName) && box.closest(".rl");
  if (!inside || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  box.blur(); // which takes over what was written
  const buttons = "[data-testid=bottombar-submit-button], [data-testid=bottombar-update-button]";
  setTimeout(() => document.querySelector(buttons)?.click(), 50);
}, true);
window.addEventListener("change", (event) => {
  if (event.target instanceof Element && event.target.closest(".rl") && /^(radio|checkbox)$/.test(event.target.type)) {
    event.target.blur();
  }
});
// Lines between fences of ``` or ~~~ are code, and get a class. Text stays text: nothing in it is ever run or formatted.
new MutationObserver(() => {
  for (const box of document.querySelectorAll(".rl .lsf-richtext__container")) {
    let inside = false;
    for (const line of box.querySelectorAll(".lsf-richtext__line")) {
      const fence = /^\s*(```|~~~)/.test(line.textContent);
      line.classList.toggle("rl-code", inside || fence);
      if (fence) inside = !inside;
    }
  }
}).observe(document, { childList: true, subtree: true, characterData: true });
