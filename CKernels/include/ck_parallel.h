// The one threading seam: a team of threads for the process, and scratch memory for each thread.
#ifndef CK_PARALLEL_H
#define CK_PARALLEL_H

#include <stddef.h>

// Does items [first, last) of a job; must give the same bits however the items are cut.
typedef void (*ck_task)(const void *context, size_t first, size_t last);

// Runs items [0, count) in pieces of `grain` on up to `threads` threads, the caller included, and returns when all are done.
// A caller that finds the team busy, or asks for one thread, runs every item in place. Calls from inside a task run in place.
void ck_parallel(size_t count, size_t grain, size_t threads, ck_task task, const void *context);

// Inside a task: which of the `threads` participants runs it, 0 ..< threads, the caller being 0. 0 outside any task and where
// items run in place. A caller that allocates one piece of scratch a participant hands them out by this number.
size_t ck_participant(void);

// 64-byte aligned scratch of this thread for at least `count` floats, valid until this thread's next call with the same slot.
// Grows and never shrinks, so a steady state allocates nothing. NULL when memory is exhausted. Slots: 0 ..< CK_SCRATCH_SLOTS.
float *ck_scratch(size_t slot, size_t count);
#define CK_SCRATCH_SLOTS 7
#define CK_SCRATCH_B 0          // the GEMM driver's packed B
#define CK_SCRATCH_A 1          // the GEMM driver's packed A, a block for every participant
#define CK_SCRATCH_ATTENTION 2  // the attention driver's
#define CK_SCRATCH_CALLER 3     // free for whoever calls the drivers
#define CK_SCRATCH_ROWS 4       // rows of operands that are not f32
#define CK_SCRATCH_OPERATION 5  // drivers that call other drivers
#define CK_SCRATCH_PIECES 6     // sums of pieces of a long K

// Threads the process may use: affinity mask and cgroup quota (rounded down), at least 1.
size_t ck_allowed_threads(void);
// Threads the team has started so far, the caller not counted.
size_t ck_team_workers(void);
// "openmp" or "pthread".
const char *ck_team_kind(void);

#endif
