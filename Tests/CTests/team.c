// The threading seam, and the row driver's empty calls.
#include <stdatomic.h>
#include <stdlib.h>

#include "definitions.h"

enum { MOST_ITEMS = 1000, MOST_THREADS = 8 };
static _Atomic int visits[MOST_ITEMS];
static _Atomic int strangers;

static void visit(const void *threads, size_t first, size_t last) {
  if (ck_participant() >= *(const size_t *)threads) atomic_fetch_add(&strangers, 1);
  for (size_t item = first; item < last; item++) atomic_fetch_add(&visits[item], 1);
}

void check_parallel(test *t) {
  const size_t cuts[][2] = {{0, 1}, {1, 1}, {2, 1}, {7, 3}, {100, 7}, {MOST_ITEMS, 1}, {5, 100}};
  for (size_t threads = 1; threads <= MOST_THREADS; threads++)
    for (size_t k = 0; k < COUNT(cuts); k++) {
      situation(t, AT_END, "%zu items by %zu on %zu threads", cuts[k][0], cuts[k][1], threads);
      for (size_t item = 0; item < MOST_ITEMS; item++) visits[item] = 0;
      ck_parallel(cuts[k][0], cuts[k][1], threads, visit, &threads);
      for (size_t item = 0; item < MOST_ITEMS; item++)
        if (visits[item] != (item < cuts[k][0])) fail(t, "item %zu ran %d times", item, visits[item]);
    }
  situation(t, AT_END, "participants and scratch");
  if (strangers) fail(t, "%d participants out of range", strangers);
  for (size_t slot = 0; slot < CK_SCRATCH_SLOTS; slot++) {
    float *scratch = ck_scratch(slot, 100);
    if (!scratch || (uintptr_t)scratch % 64 || ck_scratch(slot, 50) != scratch) fail(t, "slot %zu", slot);
  }
  if (ck_scratch(CK_SCRATCH_CALLER, SIZE_MAX / 8)) fail(t, "memory that cannot be had was given");
}

static void never(const ck_rows *call, size_t first, size_t last) {
  (void)call, (void)first, (void)last;
  abort();
}

void check_rows_run(test *t) {
  situation(t, AT_END, "no rows");
  for (int type = 0; type < CK_DTYPE_COUNT; type++) {
    const ck_rows call = {.n = 5, .x_type = (ck_dtype)type, .y_type = (ck_dtype)type};
    if (ck_rows_run(t->table, never, &call, 2)) fail(t, "type %d", type);
  }
}
