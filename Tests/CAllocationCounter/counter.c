// An executable's own malloc takes the place of glibc's for every library it loads, the Swift runtime and OpenBLAS included.
// Each function here counts and goes on to glibc's, which has these other names for that purpose.
#include "include/CAllocationCounter.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#if !defined(__has_feature)
#define __has_feature(x) 0
#endif
#if defined(__GLIBC__) && !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
#define CAN_COUNT 1
#include <execinfo.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static _Atomic int64_t allocations;
static _Atomic int counting, tracing;
static _Thread_local int in_trace;

static void count(void) {
  if (!atomic_load_explicit(&counting, memory_order_relaxed)) return;
  if (in_trace) return;  // a backtrace allocates when it is first taken
  atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
  if (!atomic_load_explicit(&tracing, memory_order_relaxed)) return;
  in_trace = 1;
  void *frames[24];
  backtrace_symbols_fd(frames, backtrace(frames, 24), 2);
  in_trace = 0;
}

void *malloc(size_t size) {
  count();
  return __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
  count();
  return __libc_calloc(items, size);
}

void *realloc(void *pointer, size_t size) {
  count();
  return __libc_realloc(pointer, size);
}

void *memalign(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **pointer, size_t alignment, size_t size) {
  count();
  if (alignment % sizeof(void *) || !alignment || alignment & (alignment - 1)) return EINVAL;
  void *memory = __libc_memalign(alignment, size);
  if (!memory) return ENOMEM;
  *pointer = memory;
  return 0;
}

int32_t allocation_counter_works(void) { return CAN_COUNT; }

void allocation_counter_start(int32_t traces) {
  atomic_store(&tracing, traces);
  atomic_store(&allocations, 0);
  atomic_store(&counting, 1);
}

int64_t allocation_counter_stop(void) {
  atomic_store(&counting, 0);
  return atomic_load(&allocations);
}

#else

int32_t allocation_counter_works(void) { return 0; }
void allocation_counter_start(int32_t traces) { (void)traces; }
int64_t allocation_counter_stop(void) { return -1; }

#endif
