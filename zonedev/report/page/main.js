// SPDX-License-Identifier: LGPL-2.1-or-later
// What happens when the page is opened: the switch of themes, the data, the maps, the list.

const THEMES = ["auto", "light", "dark"];

/** The browser's storage may be closed to files. */
function remembered(value) {
	try {
		if (value !== undefined)
			localStorage.setItem("zonedev-theme", value);
		return localStorage.getItem("zonedev-theme");
	} catch (error) {
		return null;
	}
}

function setTheme(theme, redraw) {
	const known = THEMES.includes(theme) ? theme : "auto";
	if (known === "auto")
		delete document.documentElement.dataset.theme;
	else
		document.documentElement.dataset.theme = known;
	by("theme").textContent = "theme: " + known;
	redraw();
	return known;
}

function switchThemes(redraw) {
	let theme = setTheme(remembered(), redraw);
	by("theme").hidden = false;
	by("theme").addEventListener("click", () => {
		theme = setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length], redraw);
		remembered(theme);
	});
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

/** Each rule that is told above leads to its findings. */
function linkGroups(list) {
	for (const group of document.querySelectorAll(".group")) {
		const button = make("button", { type: "button", className: "show" }, "list them");
		button.addEventListener("click", () => list.ofRule(group.dataset.rule, group.dataset.severity));
		group.querySelector("h3").append(button);
	}
}

/** What there is on the page: null where there is none. */
const page = { maps: null, list: null };

async function start() {
	switchThemes(() => page.maps && page.maps.recolour());
	const data = await unpack(by("data"));
	const findings = new Findings(data);
	by("findings").hidden = false;
	if (data.pagemaps.some((pagemap) => pagemap.ranges.length)) {
		by("map").hidden = false;
		page.maps = new Maps(data, findings, (range) => drawHistogram(range.pagemap));
	}
	page.list = new List(data, findings, page.maps);
	linkGroups(page.list);
	if (page.maps)
		connect(page.maps, page.list);
}

/** Cells lead to their findings. */
function connect(maps, list) {
	maps.onCell = (range, start, end) => {
		list.only([start, end], range.name + " " + hex(start) + "-" + hex(end - 1));
		by("findings").scrollIntoView();
	};
	maps.introduce(maps.worst());
}

start().catch((error) => {
	by("problem").hidden = false;
	by("problem").textContent = error.message;
	throw error;
}).finally(() => {
	document.documentElement.dataset.ready = String(Math.round(performance.now()));
});
