/* What the page needs beyond Gradio: languages, tabs in the address, and what a keyboard or a
   screen reader finds missing. */
(() => {
  // Gradio's own words follow the browser; the page was sent in the language that holds here.
  const language = document.documentElement.lang;
  Object.defineProperty(navigator, "language", { get: () => language });
  Object.defineProperty(navigator, "languages", { get: () => [language] });

  document.addEventListener("click", (event) => {
    const chosen = event.target.closest?.("[data-language]");
    if (!chosen || chosen.lang === language) return;
    const some = document.querySelector("#grid img, #picture img, #around img");
    if (some && !confirm("[[page.reload]]")) return;
    document.cookie = `omokage_language=${chosen.dataset.language}; path=/; max-age=31536000; samesite=lax`;
    location.reload();
  });

  // Tabs in the address: Back goes to the tab before.
  const tabs = () => [...document.querySelectorAll("#tabs > .tab-wrapper button[role=tab]")];
  const nameOf = (tab) => tab.id.replace(/^tab-|-button$/g, "");
  const tabOf = (name) => tabs().find((tab) => nameOf(tab) === name);
  let shown = "";
  const followTab = () => {
    const tab = tabs().find((one) => one.getAttribute("aria-selected") === "true");
    if (!tab || nameOf(tab) === shown) return;
    const address = `${location.pathname}${location.search}#${nameOf(tab)}`;
    if (!shown) {
      const wanted = tabOf(location.hash.slice(1));
      shown = nameOf(tab);
      if (wanted && wanted !== tab) wanted.click();
      else history.replaceState(null, "", address);
      return;
    }
    shown = nameOf(tab);
    if (location.hash !== `#${shown}`) history.pushState(null, "", address);
  };
  addEventListener("popstate", () => tabOf(location.hash.slice(1) || "draw")?.click());

  // Enter draws, from anything that is chosen or typed there.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    if (!event.target.matches?.("#tab-draw input")) return;
    event.target.blur(); // a typed number counts from then on
    event.target.focus();
    setTimeout(() => document.getElementById("draw")?.click(), 50);
  });

  // Arrow keys walk over the map, from anything in it that has the focus.
  document.addEventListener("keydown", (event) => {
    const way = /^Arrow(Left|Right|Up|Down)$/.exec(event.key)?.[1].toLowerCase();
    if (!way || !event.target.closest?.("#around, #walk")) return;
    event.preventDefault();
    document.getElementById(`walk-${way}`)?.click();
  }, true);

  // A number beyond its range becomes the nearest one as it is typed, and whole ones are rounded:
  // nothing out of range is kept for later.
  document.addEventListener("input", (event) => {
    const box = event.target;
    if (!box.matches?.("input[type=number]") || box.value === "") return;
    if (box.max !== "" && Number(box.value) > Number(box.max)) box.value = box.max;
  }, true);
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!box.matches?.("input[type=number]") || box.value === "") return;
    let value = Number(box.value);
    if (box.min !== "") value = Math.max(value, Number(box.min));
    if (box.step === "1") value = Math.round(value);
    if (value === Number(box.value)) return;
    box.value = value;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);

  const TITLES = { Error: "[[errors.again]]", Warning: "[[errors.warning]]", Info: "[[errors.info]]" };

  // Radios of one group are one group: one tab stop, arrow keys, and a name to be heard.
  const mend = () => {
    for (const group of document.querySelectorAll("fieldset")) {
      const title = group.querySelector("[data-testid=block-info]");
      if (title) group.setAttribute("aria-label", title.textContent.trim());
      const radios = [...group.querySelectorAll("input[type=radio]")];
      const name = radios[0]?.name;
      for (const radio of radios) if (radio.name !== name) radio.name = name;
    }
    // Messages have our words above them, and no button within a button.
    for (const header of document.querySelectorAll(".toast-header[role]")) {
      header.removeAttribute("role");
      header.removeAttribute("tabindex");
    }
    for (const title of document.querySelectorAll(".toast-title")) {
      const kind = title.firstChild?.data?.trim();
      if (kind in TITLES) title.firstChild.data = `${TITLES[kind]} `;
    }
    for (const button of document.querySelectorAll("[data-language]")) {
      if (button.lang === language) button.setAttribute("aria-current", "true");
    }
    followTab();
  };
  // At once, and not a little later: the next key may come before.
  new MutationObserver(mend).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["aria-selected", "name"] });
})();
