// SPDX-License-Identifier: LGPL-2.1-or-later
// Maps: a strip for each range of a pagemap, and a grid of cells that zooms.  A cell shows what covers everything
// else in it, in the order of MARKS, as a colour and as a character: the ones of `zonedev map`.

const MARKS = [
	["violation", "X", "violation"],
	["warning", "w", "a finding that is a warning"],
	["unreadable", "!", "unreadable"],
	["not-captured", "?", "not captured"],
	["busy", "#", "half or more busy"],
	["busy", "+", "some busy"],
	["idle", ".", "idle"],
	["skipped", "-", "skipped"],
];
const CELL_WIDTH = 8, CELL_HEIGHT = 16, ROWS_MAX = 24, CHARACTER_WIDTH = 7, ERROR = 2, WARNING = 1;

const powerOfTwo = (number) => 2 ** Math.floor(Math.log2(Math.max(number, 1)));

/** The colours of the theme. */
function readColours() {
	const style = getComputedStyle(document.documentElement);
	const names = ["idle", "busy", "violation", "not-captured", "unreadable", "skipped", "warning",
		"ink", "muted", "card", "accent", "on-busy", "on-idle", "hatch", "mark", "line"];
	return Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
}

/** A canvas as large as it is shown, cleared; null where it is not shown. */
function begin(canvas, height) {
	const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
	if (!width)
		return null;
	if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
		canvas.width = Math.round(width * ratio);
		canvas.height = Math.round(height * ratio);
	}
	const context = canvas.getContext("2d");
	context.setTransform(ratio, 0, 0, ratio, 0, 0);
	context.clearRect(0, 0, width, height);
	return context;
}

/** What a cell looks like: its mark, and for busy ones how much of it is. */
function lookOf(sums, classes, warned) {
	const count = Object.fromEntries(classes.map((name, i) => [name, sums[i]]));
	const share = count.busy / Math.max(count.busy + count.idle, 1);
	const is = {
		"violation": count.violation, "warning": warned, "unreadable": count.unreadable,
		"not-captured": count["not-captured"], "idle": count.idle, "skipped": count.skipped,
	};
	const mark = MARKS.find(([kind, char]) => kind === "busy" ? count.busy && (char === "+" || share >= .5) : is[kind]);
	return mark && { kind: mark[0], char: mark[1], share };
}

function hatch(context, x, y, width, height, colour) {
	context.save();
	context.beginPath();
	context.rect(x, y, width, height);
	context.clip();
	context.strokeStyle = colour;
	context.beginPath();
	for (let at = x - height; at < x + width; at += 4) {
		context.moveTo(at, y + height);
		context.lineTo(at + height, y);
	}
	context.stroke();
	context.restore();
}

function paint(context, look, x, y, width, height, colours) {
	context.fillStyle = colours[look.kind === "busy" || look.kind === "warning" ? "idle" : look.kind];
	context.fillRect(x, y, width, height);
	if (look.share > 0 && look.kind !== "violation") {
		context.globalAlpha = .4 + .6 * look.share;
		context.fillStyle = colours.busy;
		context.fillRect(x, y, width, height);
		context.globalAlpha = 1;
	}
	if (look.kind === "warning") {
		context.fillStyle = colours.warning;
		context.fillRect(x, y + height - 4, width, 4);
	}
	if (look.kind === "not-captured" || look.kind === "unreadable")
		hatch(context, x, y, width, height, colours.hatch);
}

function character(context, look, x, y, width, height, colours) {
	const plain = look.kind === "idle" || look.kind === "skipped";
	const dark = look.kind === "busy" || look.kind === "warning";
	context.font = (plain ? "" : "bold ") + "11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
	context.fillStyle = colours[plain ? "on-idle" : look.kind === "warning" && !look.share ? "warning" : dark ? "on-busy" : "mark"];
	context.textAlign = "center";
	context.fillText(look.char, x + width / 2, y + height / 2 + 4);
}

/** All maps of the page. */
class Maps {
	constructor(data, findings, chosen) {
		this.data = data;
		this.findings = findings;
		this.chosen = chosen;
		this.colours = readColours();
		this.ranges = data.pagemaps.flatMap((pagemap) => pagemap.ranges.map((range, i) => ({
			pagemap,
			name: pagemap.name + (pagemap.ranges.length > 1 ? ", range " + (i + 1) : ""),
			cells: new Cells(range, data.classes),
		})));
		this.strips = this.ranges.map((range) => this.strip(range));
		by("ranges").replaceChildren(...this.strips.map((strip) => strip.button));
		this.legend();
		this.listen();
	}

	sums(range) {
		return range.cells.sums(range.cells.start, range.cells.end);
	}

	/** What is wrong with a range, in words, and how bad that is. */
	state(range) {
		const violations = this.sums(range)[this.data.classes.indexOf("violation")];
		if (violations)
			return [many(violations, "page") + " in violation", "bad"];
		return this.findings.has(WARNING, range.cells.start, range.cells.end) ? ["warnings", "warned"] : ["no violation", ""];
	}

	/** A strip is a button: what it shows stands in its name, too. */
	strip(range) {
		const [told, kind] = this.state(range);
		const pages = range.cells.end - range.cells.start;
		const canvas = make("canvas", { "aria-hidden": "true" });
		const button = make("button", { type: "button", className: "range", "aria-pressed": "false" },
			make("span", { className: "name" }, make("b", {}, range.name), make("small", {}, range.pagemap.type)),
			canvas,
			make("span", { className: "sums" }, many(pages, "page"), make("br"), " ",
				make("span", { className: kind }, told)));
		button.addEventListener("click", () => this.introduce(range));
		return { range, button, canvas };
	}

	drawStrip(strip) {
		const height = 34, context = begin(strip.canvas, height), { start, end } = strip.range.cells;
		if (!context)
			return;
		const width = strip.canvas.clientWidth, step = (end - start) / width, wrong = [];
		for (let x = 0; x < width; x++) {
			const low = start + Math.floor(x * step), high = Math.max(start + Math.floor((x + 1) * step), low + 1);
			const look = this.look(strip.range, low, high);
			if (look && look.kind !== "violation")
				paint(context, look, x, 0, 1, height - 8, this.colours);
			else if (look)
				wrong.push([look, x]);
		}
		for (const [look, x] of wrong)
			paint(context, look, x, 0, 2, height - 8, this.colours);
		this.ticks(context, strip.range, width, height);
		if (strip.range === this.range) {
			context.strokeStyle = this.colours.ink;
			context.lineWidth = 2;
			context.strokeRect(Math.max((this.from - start) / step, 1), 1, Math.max((this.to - this.from) / step - 2, 3), height - 9);
		}
	}

	/** Below a strip, an arrow for where there is something: it is seen, however small it is. */
	ticks(context, range, width, height) {
		const { start, end } = range.cells, step = (end - start) / width * 6;
		for (const [severity, colour] of [[WARNING, "warning"], [ERROR, "violation"]]) {
			context.fillStyle = this.colours[colour];
			for (let x = 0; x < width; x += 6) {
				const low = start + Math.floor(x / 6 * step);
				if (!this.findings.has(severity, low, Math.max(Math.floor(low + step), low + 1)))
					continue;
				context.beginPath();
				context.moveTo(x + 3, height - 7);
				context.lineTo(x + 6, height);
				context.lineTo(x, height);
				context.fill();
			}
		}
	}

	look(range, start, end) {
		const { start: first, end: last } = range.cells;
		if (end <= first || start >= last)
			return null;
		const low = Math.max(start, first), high = Math.min(end, last);
		const look = lookOf(range.cells.sums(low, high), this.data.classes, this.findings.has(WARNING, low, high));
		// Cells may be larger than what is drawn: of errors, the finding knows where they are.
		if (look && look.kind === "violation" && high - low < range.cells.size && !this.findings.has(ERROR, low, high))
			return { ...look, faded: true };
		return look;
	}

	/** Choose a range, and the pages of it that the grid shows. */
	show(range, from, to) {
		const { start, end } = range.cells;
		this.range = range;
		if (from === undefined)
			[from, to] = [start, end];
		// Borders that are easy to read, and a window that is not too small.
		const unit = powerOfTwo(Math.max(to - from, 64) / 16), low = Math.floor(from / unit) * unit;
		const pages = Math.min(Math.max(Math.ceil(to / unit) * unit - low, 64), end - start);
		this.from = Math.min(Math.max(low, start), end - pages);
		this.to = this.from + pages;
		if (!(this.cursor >= this.from && this.cursor < this.to))
			this.cursor = this.from;
		for (const strip of this.strips)
			strip.button.setAttribute("aria-pressed", String(strip.range === range));
		this.draw();
		this.chosen(range);
	}

	/** Rows are aligned, as cells are: a pfn stands where it did. */
	layOut() {
		const canvas = by("grid"), width = canvas.clientWidth, label = (hex(this.range.cells.end).length + 1) * 7.5;
		const columns = powerOfTwo((width - label) / CELL_WIDTH);
		const rows = (each) => Math.floor((this.to - 1) / (each * columns)) - Math.floor(this.from / (each * columns)) + 1;
		let each = 1;
		while (rows(each) > ROWS_MAX)
			each *= 2;
		const first = Math.floor(this.from / (each * columns)) * each * columns;
		this.grid = { columns, each, rows: rows(each), first, label, width: (width - label) / columns };
	}

	drawGrid() {
		this.layOut();
		const { columns, each, rows, first, label, width } = this.grid;
		const canvas = by("grid"), height = rows * CELL_HEIGHT + 4;
		canvas.style.height = height + "px";
		const context = begin(canvas, height);
		if (!context)
			return;
		for (let row = 0; row < rows; row++) {
			const y = row * CELL_HEIGHT + 2;
			context.font = "12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
			context.textAlign = "left";
			context.fillStyle = this.colours.muted;
			context.fillText(hex(first + row * columns * each), 0, y + 12);
			for (let column = 0; column < columns; column++)
				this.drawCell(context, first + (row * columns + column) * each, label + column * width, y);
		}
		this.drawCursor(context);
	}

	drawCell(context, pfn, x, y) {
		const { each, width } = this.grid, low = Math.max(pfn, this.from), high = Math.min(pfn + each, this.to);
		const look = low < high && this.look(this.range, low, high);
		if (!look)
			return;
		const gap = width > 5 ? 1 : 0;
		context.globalAlpha = look.faded ? .45 : 1;
		paint(context, look, x, y, width - gap, CELL_HEIGHT - 1, this.colours);
		if (width - gap >= CHARACTER_WIDTH - 1)
			character(context, look, x, y, width - gap, CELL_HEIGHT - 1, this.colours);
		context.globalAlpha = 1;
	}

	placeOf(pfn) {
		const { columns, each, first, label, width } = this.grid, i = Math.floor((pfn - first) / each);
		return [label + i % columns * width, Math.floor(i / columns) * CELL_HEIGHT + 2];
	}

	drawCursor(context) {
		const [x, y] = this.placeOf(this.cursor);
		context.strokeStyle = this.colours.ink;
		context.lineWidth = 2;
		context.strokeRect(x - 1, y - 1, this.grid.width + 1, CELL_HEIGHT + 1);
		if (this.dragged === undefined)
			return;
		const low = Math.min(this.dragged, this.cursor), high = Math.max(this.dragged, this.cursor);
		context.globalAlpha = .35;
		context.fillStyle = this.colours.accent;
		for (let pfn = low; pfn <= high; pfn += this.grid.each)
			context.fillRect(...this.placeOf(pfn), this.grid.width, CELL_HEIGHT);
		context.globalAlpha = 1;
	}

	/** The first page of the cell at a place of the grid, undefined where there is none. */
	hit(event) {
		const box = by("grid").getBoundingClientRect(), { columns, each, rows, first, label, width } = this.grid;
		const column = Math.floor((event.clientX - box.left - label) / width), row = Math.floor((event.clientY - box.top - 2) / CELL_HEIGHT);
		if (column < 0 || column >= columns || row < 0 || row >= rows)
			return undefined;
		const pfn = first + (row * columns + column) * each;
		return pfn + each > this.from && pfn < this.to ? Math.max(pfn, this.from) : undefined;
	}

	/** The pages [start, end) of the cell that holds a page. */
	cellAt(pfn) {
		const { each } = this.grid, start = Math.floor(pfn / each) * each;
		return [Math.max(start, this.from), Math.min(start + each, this.to)];
	}

	/** What there is to say of a cell, in words. */
	words(pfn) {
		const [start, end] = this.cellAt(pfn), { cells } = this.range;
		const sums = cells.sums(start, end), pages = sums.reduce((sum, n) => sum + n, 0);
		const classes = this.data.classes.map((name, i) => sums[i] && name + " " + sums[i].toLocaleString("en")).filter(Boolean);
		const counted = pages > end - start ? " (counted " + many(pages, "page") + " at a time)" : "";
		const lines = ["pfn " + hex(start) + (end - start > 1 ? "-" + hex(end - 1) : "") + ", " + many(end - start, "page") + ": " + classes.join(", ") + counted];
		const row = this.findings.next(start, start, end);
		if (row >= 0)
			lines.push(this.findings.kind(row).severity + ": " + this.findings.kind(row).rule + " at pfn " + hex(this.findings.pfns[row]));
		return lines;
	}

	draw() {
		if (!this.range)
			return;
		this.strips.forEach((strip) => this.drawStrip(strip));
		this.drawGrid();
		by("map-title").textContent = this.title();
		by("grid").setAttribute("aria-label", "map of " + this.range.name);
		this.tell();
		const whole = this.to - this.from === this.range.cells.end - this.range.cells.start;
		by("zoom-all").disabled = by("zoom-out").disabled = by("zoom-back").disabled = by("zoom-on").disabled = whole;
		by("zoom-worst").disabled = this.findings.next(0, this.range.cells.start, this.range.cells.end) < 0;
	}

	/** What the grid shows, and how much a cell is. */
	title() {
		const bytes = this.grid.each * this.data.pageSize, units = ["B", "KiB", "MiB", "GiB", "TiB"];
		const power = Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
		return this.range.name + " \u00b7 pfn " + hex(this.from) + "-" + hex(this.to - 1) + " \u00b7 a cell is " +
			many(this.grid.each, "page") + " (" + bytes / 1024 ** power + " " + units[power] + ")";
	}

	tell() {
		by("grid-cell").textContent = this.words(this.cursor).join("; ");
	}

	zoom(factor, pfn = this.cursor) {
		const pages = Math.max(Math.round((this.to - this.from) * factor), 64), unit = powerOfTwo(pages / 16);
		const low = Math.floor((pfn - pages * (pfn - this.from) / (this.to - this.from)) / unit) * unit;
		this.show(this.range, low, low + pages);
	}

	pan(share) {
		const step = Math.round((this.to - this.from) * share);
		this.show(this.range, this.from + step, this.to + step);
	}

	move(cells) {
		const { each } = this.grid, [start] = this.cellAt(this.cursor), { start: first, end } = this.range.cells;
		this.cursor = Math.min(Math.max(start + cells * each, first), end - 1);
		if (this.cursor < this.from || this.cursor >= this.to)
			this.pan(cells < 0 ? -.5 : .5);
		else
			this.draw();
	}

	/** Show some pages, with as much around them that one sees where they are. */
	reveal(pfn, pages) {
		const range = this.ranges.find(({ cells }) => pfn >= cells.start && pfn < cells.end);
		if (!range)
			return;
		const around = Math.max(powerOfTwo(pages) * 4, 2048), middle = pfn + Math.min(pages, around) / 2;
		this.cursor = pfn;
		this.show(range, middle - around / 2, middle + around / 2);
	}

	/** The next finding behind the cursor; behind the last one, the first. */
	nextFinding() {
		const { start, end } = this.range.cells;
		let row = this.findings.next(this.cursor + 1, start, end);
		if (row < 0)
			row = this.findings.next(start, start, end);
		if (row >= 0)
			this.reveal(this.findings.pfns[row], this.findings.get("pages", row));
	}

	/** Show a range as a whole, with the cursor at its first finding. */
	introduce(range) {
		const row = this.findings.next(0, range.cells.start, range.cells.end);
		this.cursor = row < 0 ? range.cells.start : this.findings.pfns[row];
		this.show(range);
	}

	/** The range with the most violations, else warnings, else the first. */
	worst() {
		const bad = this.data.classes.indexOf("violation");
		const score = (range) => this.sums(range)[bad] * 2 + this.findings.has(WARNING, range.cells.start, range.cells.end);
		return this.ranges.reduce((best, range) => score(range) > score(best) ? range : best, this.ranges[0]);
	}

	legend() {
		const marks = MARKS.map(([kind, char, meaning]) => {
			const canvas = make("canvas", { width: 18, height: 14, "aria-hidden": "true" });
			return make("span", { "data-kind": kind, "data-char": char }, canvas, char + " " + meaning);
		});
		by("legend").replaceChildren(...marks);
		this.drawLegend();
	}

	drawLegend() {
		for (const span of by("legend").children) {
			const { kind, char } = span.dataset, context = span.firstChild.getContext("2d");
			context.clearRect(0, 0, 18, 14);
			const look = { kind, char, share: kind === "busy" ? (char === "#" ? 1 : .1) : 0 };
			paint(context, look, 0, 0, 18, 14, this.colours);
			character(context, look, 0, 0, 18, 14, this.colours);
		}
	}

	recolour() {
		this.colours = readColours();
		this.drawLegend();
		this.draw();
	}

	keys() {
		const { columns } = this.grid, zoomed = (factor) => () => this.zoom(factor);
		return {
			ArrowLeft: () => this.move(-1), ArrowRight: () => this.move(1),
			ArrowUp: () => this.move(-columns), ArrowDown: () => this.move(columns),
			PageUp: () => this.pan(-.5), PageDown: () => this.pan(.5),
			"+": zoomed(.5), "=": zoomed(.5), "-": zoomed(2), Home: () => this.show(this.range),
			Enter: () => this.onCell(this.range, ...this.cellAt(this.cursor)),
		};
	}

	listen() {
		const click = (id, action) => by(id).addEventListener("click", action);
		click("zoom-in", () => this.zoom(.5));
		click("zoom-out", () => this.zoom(2));
		click("zoom-back", () => this.pan(-.5));
		click("zoom-on", () => this.pan(.5));
		click("zoom-all", () => this.show(this.range));
		click("zoom-worst", () => this.nextFinding());
		by("grid").addEventListener("keydown", (event) => this.press(event));
		this.listenToPointer(by("grid"), by("tip"));
		new ResizeObserver(() => this.draw()).observe(by("map"));
	}

	press(event) {
		const action = !event.ctrlKey && !event.metaKey && !event.altKey && this.keys()[event.key];
		if (!action)
			return;
		event.preventDefault();
		action();
	}

	listenToPointer(grid, tip) {
		grid.addEventListener("wheel", (event) => {
			const pfn = this.hit(event);
			if (!event.ctrlKey || pfn === undefined)
				return;
			event.preventDefault();
			this.zoom(event.deltaY < 0 ? .5 : 2, pfn);
		}, { passive: false });
		grid.addEventListener("pointerdown", (event) => {
			const pfn = this.hit(event);
			if (pfn === undefined || event.button)
				return;
			this.pressed = this.cursor = pfn;
			this.drawGrid();
			this.tell();
		});
		grid.addEventListener("pointermove", (event) => this.hover(event, tip));
		grid.addEventListener("pointerleave", () => { tip.hidden = true; });
		window.addEventListener("pointerup", () => this.release());
	}

	hover(event, tip) {
		const pfn = this.hit(event);
		tip.hidden = pfn === undefined;
		if (pfn === undefined)
			return;
		tip.textContent = this.words(pfn).join("\n");
		tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
		tip.style.top = (event.clientY + 18 + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
		if (this.pressed === undefined)
			return;
		this.cursor = pfn;
		this.dragged = this.cellAt(pfn)[0] === this.cellAt(this.pressed)[0] ? undefined : this.pressed;
		this.drawGrid();
	}

	/** The end of a drag is a zoom. */
	release() {
		const [one, other] = [this.dragged, this.cursor];
		this.pressed = this.dragged = undefined;
		if (one === undefined)
			return;
		this.cursor = Math.min(one, other);
		this.show(this.range, this.cellAt(this.cursor)[0], this.cellAt(Math.max(one, other))[1]);
	}
}

/** Folios per reference count of a pagemap; bars are logarithmic. */
function drawHistogram(pagemap) {
	const shown = [...pagemap.refcounts].sort((a, b) => b[1] - a[1]).slice(0, 32).sort((a, b) => a[0] - b[0]);
	const rest = pagemap.refcounts.reduce((sum, row) => sum + row[1], pagemap.refcountsOther) - shown.reduce((sum, row) => sum + row[1], 0);
	const most = Math.log10(Math.max(...shown.map((row) => row[1]), rest, 1) + 1);
	const rows = shown.map(([refcount, heads]) => bar(String(refcount), heads, most, refcount === pagemap.idle ? "idle" : refcount < (pagemap.idle || 0) ? "below" : ""));
	if (rest)
		rows.push(bar("others", rest, most, ""));
	by("histogram").replaceChildren(...rows);
	by("histogram-title").textContent = pagemap.name + ": folios by reference count (bars are logarithmic); free ones rest at " + (pagemap.idle ?? "?");
}

function bar(label, heads, most, kind) {
	const fill = make("div", { className: "fill" });
	fill.style.width = 100 * Math.log10(heads + 1) / most + "%";
	const words = { idle: " (free)", below: " (below free)" }[kind] || "";
	return make("div", { className: "row " + kind }, make("span", {}, label + words), make("div", { className: "track", "aria-hidden": "true" }, fill), make("span", { className: "num" }, heads.toLocaleString("en")));
}
