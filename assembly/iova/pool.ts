/**
 * Where nodes and leaves come from: cut from the heap in turn, and kept in a list of their size once they are given
 * back. The lists link through the first word.
 */
import { LEAF_SIZE, MAX_LEVEL, NODE_SIZE } from './layout';

/** One change of the tree makes at most two paths of children. */
const WORST: usize = 2 * ((<usize>MAX_LEVEL) * NODE_SIZE + LEAF_SIZE);
const CACHE_LINE: usize = 64;
/** The last page is left alone, so that the end of the memory is a u32. */
const MAX_PAGES: usize = 0xffff;

let next: usize = 0;
let end: usize = 0;
let nodeList: usize = 0;
let leafList: usize = 0;
let listedNodes: u32 = 0;
let listedLeaves: u32 = 0;
let nodes: u32 = 0;
let leaves: u32 = 0;

function memoryEnd(): usize {
  const pages = <usize>memory.size();
  return (pages < MAX_PAGES ? pages : MAX_PAGES) << 16;
}

export function resetPool(): void {
  next = (__heap_base + (CACHE_LINE - 1)) & ~(CACHE_LINE - 1);
  end = memoryEnd();
  nodeList = leafList = 0;
  listedNodes = listedLeaves = nodes = leaves = 0;
}

/** Grows the memory, more than by what is missing where that can be had. */
function extend(needed: usize): bool {
  const pages = <usize>memory.size();
  const missing = (needed - (end - next) + 0xffff) >> 16;
  if (pages + missing > MAX_PAGES) return false;
  const generous = pages >> 3;
  if (generous <= missing || pages + generous > MAX_PAGES || memory.grow(<i32>generous) < 0) {
    if (memory.grow(<i32>missing) < 0) return false;
  }
  end = memoryEnd();
  return true;
}

/** That `changes` changes of the tree will find the memory they need, whatever they are. */
export function roomFor(changes: u32): bool {
  if (changes > 0xffff_ffff / (<u32>WORST)) return false;
  const needed = (<usize>changes) * WORST;
  if (end - next >= needed || extend(needed)) return true;
  // What the lists hold, and the rest of the heap for what they lack.
  const wantedNodes = changes * 2 * MAX_LEVEL;
  const wantedLeaves = changes * 2;
  const lackedNodes: u32 = wantedNodes > listedNodes ? wantedNodes - listedNodes : 0;
  const lackedLeaves: u32 = wantedLeaves > listedLeaves ? wantedLeaves - listedLeaves : 0;
  const lacked = (<usize>lackedNodes) * NODE_SIZE + (<usize>lackedLeaves) * LEAF_SIZE + CACHE_LINE;
  return end - next >= lacked || extend(lacked);
}

@inline export function roomForOne(): bool {
  return end - next >= WORST || roomFor(1);
}

export function makeNode(): usize {
  nodes++;
  const node = nodeList;
  if (node != 0) {
    nodeList = load<usize>(node);
    listedNodes--;
    return node;
  }
  // A leaf may have been cut from a line of its own.
  const made = (next + (CACHE_LINE - 1)) & ~(CACHE_LINE - 1);
  assert(end - made >= NODE_SIZE);
  next = made + NODE_SIZE;
  return made;
}

export function dropNode(node: usize): void {
  store<usize>(node, nodeList);
  nodeList = node;
  listedNodes++;
  nodes--;
}

export function makeLeaf(): usize {
  leaves++;
  const leaf = leafList;
  if (leaf != 0) {
    leafList = load<usize>(leaf);
    listedLeaves--;
    return leaf;
  }
  const made = next;
  assert(end - made >= LEAF_SIZE);
  next = made + LEAF_SIZE;
  return made;
}

export function dropLeaf(leaf: usize): void {
  store<usize>(leaf, leafList);
  leafList = leaf;
  listedLeaves++;
  leaves--;
}

/** Nodes in use, of the tree and of the queue. */
export function nodeCount(): u32 {
  return nodes;
}

export function leafCount(): u32 {
  return leaves;
}

/** That the lists are as long as they are said to be. */
export function poolIsSound(): bool {
  let count: u32 = 0;
  for (let node = nodeList; node != 0; node = load<usize>(node)) if (++count > listedNodes) return false;
  if (count != listedNodes) return false;
  count = 0;
  for (let leaf = leafList; leaf != 0; leaf = load<usize>(leaf)) if (++count > listedLeaves) return false;
  return count == listedLeaves;
}
