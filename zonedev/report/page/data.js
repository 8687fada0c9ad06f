// SPDX-License-Identifier: LGPL-2.1-or-later
// The data of the page: unpacked, and asked.  Nothing here draws; nothing of the data becomes HTML, only text.
"use strict";

const hex = (number) => "0x" + number.toString(16);
const many = (count, what) => count.toLocaleString("en") + " " + what + (count === 1 ? "" : "s");
const by = (id) => document.getElementById(id);

/** An element with properties, and children that are elements or text. */
function make(name, properties, ...children) {
	const element = document.createElement(name);
	for (const [key, value] of Object.entries(properties || {})) {
		if (key in element)
			element[key] = value;
		else
			element.setAttribute(key, value);
	}
	element.append(...children);
	return element;
}

async function unpack(element) {
	if (!element.dataset.packed)
		return JSON.parse(element.textContent);
	if (typeof DecompressionStream === "undefined")
		throw new Error("this browser cannot unpack the data of this page: Chrome 80, Firefox 113, Safari 16.4 and later can");
	const packed = atob(element.textContent), bytes = new Uint8Array(packed.length);
	for (let i = 0; i < packed.length; i++)
		bytes[i] = packed.charCodeAt(i);
	const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(element.dataset.packed));
	return JSON.parse(await new Response(stream).text());
}

/**
 * Pages per class of any pages of a range, as fine as they were counted: cell i holds the pfns
 * [(first + i) << shift, (first + i + 1) << shift).  Numbers may be above 32 bits: no shifts.
 */
class Cells {
	constructor(data, classes) {
		this.start = data.start;
		this.end = data.end;
		this.size = 2 ** data.shift;
		this.first = Math.floor(data.start / this.size);
		this.count = data.runs.reduce((sum, run) => sum + run[0], 0);
		this.below = classes.map(() => new Float64Array(this.count + 1));
		this.add(data.runs);
	}

	/** below[c][i]: pages of class c in the cells before i. */
	add(runs) {
		let i = 0;
		for (const run of runs) {
			for (let n = 0; n < run[0]; n++, i++)
				this.below.forEach((sums, c) => { sums[i + 1] = sums[i] + (run[c + 1] || 0); });
		}
	}

	cell(pfn) {
		return Math.floor(pfn / this.size) - this.first;
	}

	/** The classes of the cells that hold pages of [start, end). */
	sums(start, end) {
		const low = this.cell(Math.max(start, this.start)), high = this.cell(Math.min(end, this.end) - 1) + 1;
		return this.below.map((sums) => sums[high] - sums[low]);
	}
}

/** Findings in columns; rows are numbers.  They are sorted: the worst first, then by pfn. */
class Findings {
	constructor(data) {
		this.data = data;
		this.count = data.findings;
		this.columns = data.columns;
		this.pfns = new Float64Array(this.count);
		this.ends = new Float64Array(this.count);
		this.segments = data.severities.map(() => [0, 0]);
		this.place();
	}

	get(name, row) {
		const column = this.columns[name];
		return column[column.length === 1 ? 0 : row];
	}

	kind(row) {
		return this.data.kinds[this.get("kind", row)];
	}

	text(name, row) {
		return this.data.texts[this.get(name, row)] || "";
	}

	pagemap(row) {
		return this.data.pagemaps[this.get("pagemap", row)];
	}

	/** Pfns in whole; of each severity its rows, and how far the runs up to each of them reach. */
	place() {
		const order = this.data.severities;
		let pfn = 0, last = -1, reach = 0;
		for (let row = 0; row < this.count; row++) {
			const severity = order.indexOf(this.kind(row).severity);
			pfn += this.get("pfn", row);
			this.pfns[row] = pfn;
			if (severity !== last) {
				this.segments[severity] = [row, row];
				last = severity;
				reach = 0;
			}
			reach = Math.max(reach, pfn < 0 ? 0 : pfn + this.get("pages", row));
			this.ends[row] = reach;
			this.segments[severity][1] = row + 1;
		}
	}

	/** The first row of [low, high) whose pfn is not below. */
	search(low, high, pfn) {
		while (low < high) {
			const middle = (low + high) >>> 1;
			if (this.pfns[middle] < pfn)
				low = middle + 1;
			else
				high = middle;
		}
		return low;
	}

	/** True where a finding of that severity has one of the pages [start, end). */
	has(severity, start, end) {
		const [low, high] = this.segments[severity];
		const row = this.search(low, high, end) - 1;
		return row >= low && this.ends[row] > start;
	}

	/** The row of the next finding behind a pfn, of warnings and errors; -1 where there is none in [start, end). */
	next(pfn, start, end) {
		let best = -1;
		for (let severity = 1; severity < this.segments.length; severity++) {
			const [low, high] = this.segments[severity];
			const row = this.search(low, high, Math.max(pfn, start));
			if (row < high && this.pfns[row] < end && (best < 0 || this.pfns[row] < this.pfns[best]))
				best = row;
		}
		return best;
	}

	covers(row, start, end) {
		return this.pfns[row] >= 0 && this.pfns[row] < end && this.pfns[row] + this.get("pages", row) > start;
	}
}
