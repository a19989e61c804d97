(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const form = document.getElementById("filters");
  const words = document.getElementById("words");
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const show = () => {
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const parts = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = texts.get(row);
      row.hidden = !wanted.has(row.dataset.status) || !parts.every((part) => text.includes(part));
      count += !row.hidden;
    }
    document.getElementById("shown").value = `${count} of ${rows.length} shown`;
  };
  const sort = (event) => {
    const heading = event.currentTarget.closest("th");
    const down = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of document.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "ascending" : "descending");
    const key = (row) => row.cells[heading.cellIndex].dataset.key;
    const order = new Intl.Collator("en", {numeric: true});
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const numbers = Number(x) - Number(y);
      return (down ? 1 : -1) * (Number.isNaN(numbers) ? order.compare(x, y) : numbers);
    };
    body.append(...rows.sort(compare));
  };
  for (const button of document.querySelectorAll("th button"))
    button.addEventListener("click", sort);
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
