// Row kernels on many threads: rows in pieces, small work on the caller.
#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"

enum {
  CALLER_ELEMENTS = 1 << 15,  // about 20 microseconds of a typical row kernel
  PIECE_ELEMENTS = 1 << 13,
  PIECES_A_THREAD = 4,
};

typedef struct job {
  ck_rows_kernel kernel;
  const ck_rows *call;
} job;

static void run_rows(const void *context, size_t first, size_t last) {
  const job *j = context;
  j->kernel(j->call, first, last);
}

void ck_rows_run(ck_rows_kernel kernel, const ck_rows *call, size_t threads) {
  const size_t width = call->n ? call->n : 1;
  if (threads <= 1 || call->rows <= 1 || call->rows <= CALLER_ELEMENTS / width) {
    if (call->rows) kernel(call, 0, call->rows);
    return;
  }
  const size_t even = call->rows / (threads * PIECES_A_THREAD) + 1, least = PIECE_ELEMENTS / width + 1;
  ck_parallel(call->rows, even > least ? even : least, threads, run_rows, &(job){kernel, call});
}
