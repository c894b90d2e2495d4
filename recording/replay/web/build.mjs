// Builds the page into ../dist, from where the Go program embeds it. Nothing in the result
// refers to another place: no fonts, no scripts and no pictures from elsewhere.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, rm } from "node:fs/promises";

const out = new URL("../dist/", import.meta.url);
await mkdir(out, { recursive: true });
for (const name of await readdir(out)) {
  if (name !== ".keep") await rm(new URL(name, out), { recursive: true });
}
await build({
  entryPoints: { app: "src/app.ts" },
  outdir: out.pathname,
  bundle: true,
  splitting: true, // what opens sealed recordings is loaded where there is one
  chunkNames: "[name]-[hash]",
  format: "esm",
  target: ["es2022"],
  minify: true,
  legalComments: "linked",
  logLevel: "warning",
});
await build({
  entryPoints: { share: "src/share.ts" },
  outdir: out.pathname,
  bundle: true,
  format: "iife", // it stands in a page that is opened from a file
  target: ["es2022"],
  minify: true,
  legalComments: "none",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) {
  await copyFile(new URL(name, import.meta.url), new URL(name, out));
}
