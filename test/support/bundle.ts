/**
 * One file of all the modules of a program: under emulation, Node.js takes a tenth of a second for every hundredth that it
 * takes otherwise, and most of what a small program costs is the loading of its modules, one by one.
 *
 * Knows what this project's own modules are like, and no more: relative imports, packages that `require` can load, and
 * `import.meta.url`. What a module means is not changed: each is run once, when it is first needed.
 *
 * @module
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';

/** @param entry compiled JavaScript @returns a program of CommonJS, that can be anywhere */
export function bundle(entry: string): string {
  const modules = new Map<string, string>();
  const add = (path: string): void => {
    if (modules.has(path)) return;
    const { outputText } = ts.transpileModule(readFileSync(path, 'utf8'), {
      compilerOptions: {
        module: ts.ModuleKind.CommonJS,
        target: ts.ScriptTarget.ES2022,
        esModuleInterop: true,
      },
    });
    const itself = /\brequire\("(iommufd(?:\/[^"]*)?)"\)/.exec(outputText)?.[1];
    if (itself !== undefined) {
      throw new Error(
        `${path} imports ${itself}, a second copy of the library: import its modules by their paths`,
      );
    }
    const needed: string[] = [];
    const code = outputText
      .replace(/^\/\/# sourceMappingURL=.*$/gm, '')
      .replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href))
      .replaceAll(/\brequire\("(\.\.?\/[^"]*)"\)/g, (_, relative: string) => {
        const file = resolve(dirname(path), relative);
        needed.push(file);
        return `$module(${JSON.stringify(file)})`;
      });
    modules.set(path, code);
    for (const file of needed) add(file);
  };
  add(resolve(entry));
  const definitions = [...modules].map(
    ([path, code]) => `${JSON.stringify(path)}: function (exports, require) {${code}\n},`,
  );
  return `"use strict";
const $ran = new Map();
const $require = require("node:module").createRequire(${JSON.stringify(pathToFileURL(resolve(entry)).href)});
function $module(path) {
  let exports = $ran.get(path);
  if (exports === undefined) {
    $ran.set(path, exports = {});
    $modules[path](exports, $require);
  }
  return exports;
}
const $modules = {
${definitions.join('\n')}
};
$module(${JSON.stringify(resolve(entry))});
`;
}
