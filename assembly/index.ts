// The exports of the core: each room's own index says what they mean. Names start with the room's, since all share one
// module; an instance serves one user and one room, which has the heap from __heap_base on to itself.
export * from './iova/index';
export * from './pagetable/index';
export * from './codec/index';
