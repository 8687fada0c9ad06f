// SPDX-License-Identifier: LGPL-2.1-or-later
// The list of findings: a filter over columns, sorted, a page of rows at a time, each of which opens.

const ROWS = 100;
const SIGNS = { error: "\u2716", warning: "\u25b2", info: "i" };

const badge = (severity) => make("span", { className: "badge " + severity }, SIGNS[severity] + " " + severity);

/** A pfn, pfns as START-END, or null for other words. */
function asPfns(words) {
	const match = /^(0x[0-9a-f]+|\d+)(?:-(0x[0-9a-f]+|\d+))?$/i.exec(words);
	return match && [Number(match[1]), Number(match[2] || match[1]) + 1];
}

class List {
	constructor(data, findings, maps) {
		this.data = data;
		this.findings = findings;
		this.maps = maps;
		this.rows = new Uint32Array(findings.count);
		this.shown = 0;
		this.page = 0;
		this.sorted = { by: "worst", down: false };
		this.within = null;
		this.columns();
		this.choices();
		this.listen();
		this.filter();
	}

	columns() {
		const names = [["severity", "worst"], ["rule"], ["device"], ["pfn", "pfn"], ["pages", "pages"], ["order"],
			["refcount (expected)", "refcount"], ["mapcount"], ["what it is of"]];
		const heads = names.map(([name, key]) => {
			const button = key && make("button", { type: "button", "data-by": key }, name);
			return make("th", { scope: "col", className: /pages|order|count/.test(name) ? "num" : "" }, button || name);
		});
		by("list").tHead.replaceChildren(make("tr", {}, ...heads));
		by("list").tHead.addEventListener("click", (event) => {
			const key = event.target.dataset.by;
			if (!key)
				return;
			this.sorted = { by: key, down: this.sorted.by === key ? !this.sorted.down : key !== "pfn" && key !== "worst" };
			this.filter();
		});
	}

	choices() {
		const option = (text, value) => make("option", { value }, text);
		const rules = [...new Set(this.data.kinds.map((kind) => kind.rule))];
		by("rule").replaceChildren(option("all rules", ""), ...rules.map((rule) => option(rule, rule)));
		by("device").replaceChildren(option("all devices", ""), ...this.data.pagemaps.map((pagemap, i) => option(pagemap.name, String(i))));
		const boxes = [...this.data.severities].reverse().map((severity) => {
			const [low, high] = this.findings.segments[this.data.severities.indexOf(severity)];
			const box = make("input", { type: "checkbox", value: severity, checked: true, defaultChecked: true });
			return make("label", {}, box, " ", severity + " (" + (high - low).toLocaleString("en") + ")");
		});
		by("severities").replaceChildren(...boxes);
	}

	/** What a finding must have: tables of what is fine, by the numbers that stand in the columns. */
	wanted() {
		const words = by("query").value.trim().toLowerCase(), pfns = asPfns(words), has = (text) => !!text && text.toLowerCase().includes(words);
		const severities = new Set([...by("severities").querySelectorAll("input:checked")].map((box) => box.value));
		const rule = by("rule").value, device = by("device").value;
		return {
			words: words && !pfns, pfns,
			kind: this.data.kinds.map((kind) => severities.has(kind.severity) && (!rule || kind.rule === rule)),
			pagemap: device === "" ? -1 : Number(device),
			kindSays: this.data.kinds.map((kind) => has(kind.rule) || has(kind.means) || has(kind.number)),
			deviceSays: this.data.pagemaps.map((pagemap) => has(pagemap.name) || has(pagemap.type)),
			textSays: this.data.texts.map(has),
			mappingSays: this.data.mappings.map(has),
		};
	}

	says(row, wanted) {
		const { findings } = this;
		return wanted.kindSays[findings.get("kind", row)] || wanted.deviceSays[findings.get("pagemap", row)] ||
			["detail", "flags", "also", "more"].some((name) => wanted.textSays[findings.get(name, row)]) ||
			wanted.mappingSays[findings.get("mapping", row)];
	}

	filter() {
		const wanted = this.wanted(), { findings } = this;
		let shown = 0;
		for (let row = 0; row < findings.count; row++) {
			if (!wanted.kind[findings.get("kind", row)] || (wanted.pagemap >= 0 && findings.get("pagemap", row) !== wanted.pagemap) ||
				(wanted.pfns && !findings.covers(row, ...wanted.pfns)) || (wanted.words && !this.says(row, wanted)) ||
				(this.within && !findings.covers(row, ...this.within)))
				continue;
			this.rows[shown++] = row;
		}
		this.shown = shown;
		this.sort();
		this.turn(0);
	}

	sort() {
		const { findings } = this, sign = this.sorted.down ? -1 : 1, rows = this.rows.subarray(0, this.shown);
		const key = { pfn: (row) => findings.pfns[row], pages: (row) => findings.get("pages", row), refcount: (row) => findings.get("refcount", row) || 0 }[this.sorted.by];
		if (key)
			rows.sort((a, b) => sign * (key(a) - key(b)) || a - b);
		else if (this.sorted.down)
			rows.reverse();
		for (const button of by("list").tHead.querySelectorAll("button")) {
			const mine = button.dataset.by === this.sorted.by;
			button.parentElement.setAttribute("aria-sort", mine ? (this.sorted.down ? "descending" : "ascending") : "none");
			button.textContent = button.textContent.replace(/ [\u2191\u2193]$/, "") + (mine ? (this.sorted.down ? " \u2193" : " \u2191") : "");
		}
	}

	/** Show a page of the list. */
	turn(page) {
		const last = Math.max(Math.ceil(this.shown / ROWS), 1);
		this.page = Math.min(Math.max(page, 0), last - 1);
		const low = this.page * ROWS, high = Math.min(low + ROWS, this.shown);
		const rows = Array.from(this.rows.subarray(low, high), (row) => this.row(row));
		by("list").tBodies[0].replaceChildren(...rows);
		const of = this.shown === this.findings.count ? "" : " of " + this.findings.count.toLocaleString("en");
		by("count").textContent = this.shown ? (low + 1).toLocaleString("en") + " to " + high.toLocaleString("en") + " of " + many(this.shown, "run") + " of findings" + (of && " (" + of.trim() + ")")
			: this.findings.count ? "no finding is like that" : "there are no findings";
		by("at").value = this.page + 1;
		by("at").max = last;
		by("last").textContent = last.toLocaleString("en");
		by("first").disabled = by("previous").disabled = !this.page;
		by("next").disabled = by("end").disabled = this.page === last - 1;
	}

	pfnsOf(row) {
		const pfn = this.findings.pfns[row], pages = this.findings.get("pages", row);
		return pfn < 0 ? "the pagemap" : hex(pfn) + (pages > 1 ? "-" + hex(pfn + pages - 1) : "");
	}

	row(row) {
		const { findings } = this, kind = findings.kind(row), pagemap = findings.pagemap(row), paged = findings.pfns[row] >= 0;
		const get = (name) => paged ? String(findings.get(name, row)) : "";
		const open = make("button", { type: "button", className: "open", "aria-expanded": "false", "aria-label": "more of " + kind.rule + " at " + this.pfnsOf(row) }, "\u25b8");
		const number = (text) => make("td", { className: "num" }, text);
		const line = make("tr", { className: "finding" },
			make("td", {}, open, badge(kind.severity)), make("td", {}, make("code", {}, kind.rule)),
			make("td", {}, pagemap ? pagemap.name : ""), make("td", { className: "pfn" }, this.pfnsOf(row)),
			number(paged ? findings.get("pages", row).toLocaleString("en") : ""), number(get("order")),
			number(paged ? get("refcount") + " (" + get("expected") + ")" : ""), number(get("mapcount")),
			make("td", {}, findings.text("detail", row)));
		line.addEventListener("click", (event) => {
			if (!getSelection().toString() || event.target === open)
				this.toggle(line, open, row);
		});
		return line;
	}

	toggle(line, open, row) {
		const opened = open.getAttribute("aria-expanded") === "true";
		open.setAttribute("aria-expanded", String(!opened));
		open.textContent = opened ? "\u25b8" : "\u25be";
		if (opened)
			line.nextElementSibling.remove();
		else
			line.after(make("tr", { className: "more" }, make("td", { colSpan: 9 }, ...this.details(row))));
	}

	/** All that is known of a finding, and what its rule says. */
	details(row) {
		const { findings, data } = this, kind = findings.kind(row), paged = findings.pfns[row] >= 0, index = findings.get("index", row);
		const facts = [
			["means", kind.means], ["when", kind.when], ["bug class", kind.bug], ["near miss", kind.near],
			["also", findings.text("also", row)], ["of", findings.text("detail", row)],
			["folios", paged && many(findings.get("count", row), "folio") + " of order " + findings.get("order", row)],
			["mapping", paged && data.mappings[findings.get("mapping", row)]],
			["index", paged && (typeof index === "number" ? hex(index) : index)], ["flags", findings.text("flags", row)],
		].filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
		const parts = [make("dl", {}, ...facts)];
		if (findings.text("more", row))
			parts.push(make("pre", {}, findings.text("more", row)));
		const words = (verb) => [data.command, verb, data.target, hex(findings.pfns[row])].filter(Boolean).join(" ");
		if (paged)
			parts.push(make("pre", {}, words("page") + "\n" + words("explain")));
		if (paged && this.maps) {
			const show = make("button", { type: "button", className: "locate" }, "show on the map");
			show.addEventListener("click", () => {
				this.maps.reveal(findings.pfns[row], findings.get("pages", row));
				by("zoom").scrollIntoView({ block: "center" });
			});
			parts.push(show);
		}
		return parts;
	}

	/** Only findings on the pages [start, end); null: on any. */
	only(within, name) {
		this.within = within;
		by("within").hidden = !within;
		by("within").textContent = within ? name + " \u2715" : "";
		this.filter();
	}

	/** Only those of a rule and severity. */
	ofRule(rule, severity) {
		by("filter").reset();
		this.only(null);
		by("rule").value = rule;
		for (const box of by("severities").querySelectorAll("input"))
			box.checked = box.value === severity;
		this.filter();
		by("findings").scrollIntoView();
	}

	listen() {
		let due;
		const click = (id, action) => by(id).addEventListener("click", action);
		by("filter").addEventListener("input", () => {
			clearTimeout(due);
			due = setTimeout(() => this.filter(), 120);
		});
		by("filter").addEventListener("submit", (event) => event.preventDefault());
		by("filter").addEventListener("reset", () => setTimeout(() => this.only(null)));
		click("within", () => this.only(null));
		click("first", () => this.turn(0));
		click("previous", () => this.turn(this.page - 1));
		click("next", () => this.turn(this.page + 1));
		click("end", () => this.turn(Infinity));
		by("at").addEventListener("change", () => this.turn(Number(by("at").value) - 1));
	}
}
