// Rows of a justified grid: computes where tiles are; touches no element. All lengths in px.

const MOST_GROWTH = 1.7; // of a row's height, where few images fill the width

// Lays out `ratios` (width / height of each image) after what `rows` holds already; the last row may have to be filled up.
// headings: index of an image -> heading above its row. style: {width, row: usual height of an image, gapX, gapY,
// line: height of the text below an image, heading: height of a heading}.
// A row is {first, end: of its images, heading: top of its heading or null, top, height: of the images, bottom}.
export function extendRows(rows, ratios, headings, style) {
  let first = rows.pop()?.first ?? 0;
  let top = rows.length ? rows.at(-1).bottom + style.gapY : 0;
  while (first < ratios.length) {
    const heading = headings.has(first) ? top : null;
    if (heading !== null) top += style.heading;
    const { end, height } = fillRow(ratios, first, headings, style);
    const bottom = top + height + style.line;
    rows.push({ first, end, heading, top, height, bottom });
    first = end;
    top = bottom + style.gapY;
  }
  return rows;
}

// The row ends where its height is nearest to the usual one.
function fillRow(ratios, first, headings, { width, row, gapX }) {
  const heightOf = (sum, count) => (width - gapX * (count - 1)) / sum;
  let sum = ratios[first];
  let end = first + 1;
  for (; end < ratios.length && !headings.has(end); end += 1) {
    const before = heightOf(sum, end - first);
    const after = heightOf(sum + ratios[end], end - first + 1);
    if (after < row && before / row < row / after) break;
    sum += ratios[end];
    if (after < row) return { end: end + 1, height: after };
  }
  const isLast = end === ratios.length || headings.has(end);
  const height = heightOf(sum, end - first);
  return { end, height: Math.min(height, isLast ? row : MOST_GROWTH * row) };
}

// Left edge and width of each image of a row.
export function boxesOf({ first, end, height }, ratios, { gapX }) {
  const boxes = [];
  for (let index = first, left = 0; index < end; index += 1) {
    const width = ratios[index] * height;
    boxes.push({ index, left, width });
    left += width + gapX;
  }
  return boxes;
}

// Position of the first row whose bottom is below `y`; the number of rows if there is none.
export function rowAt(rows, y) {
  return firstWhere(rows, (row) => row.bottom >= y);
}

export function rowOf(rows, index) {
  return firstWhere(rows, (row) => row.end > index);
}

// The horizontally nearest image in the next row up (-1) or down (1); `index` if there is no such row.
export function neighbour(rows, ratios, style, index, direction) {
  const here = rowOf(rows, index);
  const target = rows[here + direction];
  if (!target) return index;
  const middle = ({ left, width }) => left + width / 2;
  const from = middle(boxesOf(rows[here], ratios, style)[index - rows[here].first]);
  const distance = (box) => Math.abs(middle(box) - from);
  return boxesOf(target, ratios, style).reduce((best, next) => (distance(next) < distance(best) ? next : best)).index;
}

// Binary search; `holds` is false for the first rows and true from some row on.
function firstWhere(rows, holds) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(rows[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}
