// Puts the dashboard's files in place: scripts and styles bundled, the icons that the templates use as one sprite, each
// under a name that carries its content's hash, with a gzip copy beside it and a manifest of the names.
//
// Usage: node build.mjs, from anywhere, after `npm ci` in the root of the checkout. `make assets` does both.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../../../../..");
const out = join(here, "../built");
const ICONS = join(root, "node_modules/@tabler/icons/icons");
// Each of these is a file of its own: what a page does not need it does not load
const ENTRIES = ["app.js", "theme.js", "charts.js", "proof.js", "app.css"];

/** Every name that a template draws: icon('x'), and those that a template chooses by a variable, from icons.txt. */
function iconNames() {
  const names = new Set(readFileSync(join(here, "icons.txt"), "utf8").split("\n").map((line) => line.replace(/#.*/, "").trim()).filter(Boolean));
  const templates = join(here, "../templates");
  for (const file of readdirSync(templates, { recursive: true })) {
    if (!file.endsWith(".html")) continue;
    for (const [, name] of readFileSync(join(templates, file), "utf8").matchAll(/\bicon\(\s*['"]([a-z0-9-]+)['"]/g)) names.add(name);
  }
  return [...names].sort();
}

/** One SVG with a symbol for each icon. Throws where an icon of that name does not exist. */
function sprite() {
  const symbols = iconNames().map((name) => {
    const drawn = readFileSync(join(ICONS, "outline", `${name}.svg`), "utf8").replace(/<!--[\s\S]*?-->/g, "");
    const inside = drawn.slice(drawn.indexOf(">", drawn.indexOf("<svg")) + 1, drawn.lastIndexOf("</svg>"));
    return `<symbol id="${name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">${inside.replace(/\s*\n\s*/g, "")}</symbol>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg">${symbols.join("")}</svg>`;
}

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const bundled = await build({
  entryPoints: ENTRIES.map((name) => join(here, name)),
  outdir: out,
  bundle: true,
  minify: true,
  write: false,
  format: "esm",
  target: ["chrome111", "firefox115", "safari16.4"],
  nodePaths: [join(root, "node_modules")],
  legalComments: "none",
  logLevel: "warning",
});
const files = bundled.outputFiles.map((file) => [relative(out, file.path), Buffer.from(file.contents)]);
files.push(["icons.svg", Buffer.from(sprite())]);

const manifest = {};
for (const [name, content] of files) {
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 12);
  const hashed = name.replace(/(\.[a-z]+)$/, `-${hash}$1`);
  writeFileSync(join(out, hashed), content);
  writeFileSync(join(out, `${hashed}.gz`), gzipSync(content, { level: 9 }));
  manifest[name] = hashed;
}
writeFileSync(join(out, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
