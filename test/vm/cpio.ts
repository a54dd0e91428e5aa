// The "newc" cpio format that the kernel unpacks as an initial root file system.

export type Item = {
  readonly path: string;
  /** File type and permission bits as in `st_mode`. */
  readonly mode: number;
  /** File contents, or a symbolic link's target. */
  readonly data?: Buffer;
  readonly device?: { readonly major: number; readonly minor: number };
};

export const directory = (path: string): Item => ({ path, mode: 0o040755 });
export const program = (path: string, data: Buffer): Item => ({ path, mode: 0o100755, data });
export const link = (path: string, target: string): Item => ({
  path,
  mode: 0o120777,
  data: Buffer.from(target),
});
export const characterDevice = (path: string, major: number, minor: number): Item => ({
  path,
  mode: 0o020600,
  device: { major, minor },
});

const padded = (parts: readonly Buffer[]): Buffer => {
  const joined = Buffer.concat(parts);
  return Buffer.concat([joined, Buffer.alloc(-joined.length & 3)]);
};

const record = (item: Item, inode: number): Buffer => {
  const data = item.data ?? Buffer.alloc(0);
  const name = Buffer.from(`${item.path}\0`);
  // ino, mode, uid, gid, nlink, mtime, size, device of the file (2), device it is (2), name length, checksum
  const fields = [inode, item.mode, 0, 0, 1, 0, data.length, 0, 0];
  fields.push(item.device?.major ?? 0, item.device?.minor ?? 0, name.length, 0);
  const header = `070701${fields.map(value => value.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([padded([Buffer.from(header), name]), padded([data])]);
};

/** Packs the items, directories before what they contain. */
export const cpio = (items: readonly Item[]): Buffer =>
  Buffer.concat([
    ...items.map((item, index) => record(item, index + 1)),
    record({ path: 'TRAILER!!!', mode: 0 }, 0),
  ]);
