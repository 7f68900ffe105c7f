// Counts heap allocations of the whole process, every thread of it, by standing in front of glibc's allocator.
#ifndef C_ALLOCATION_COUNTER_H
#define C_ALLOCATION_COUNTER_H

#include <stdint.h>

// Whether this build can count: glibc, and no sanitizer that has an allocator of its own.
int32_t allocation_counter_works(void);

// Counts from 0 on. With `traces` set, writes the call stack of every allocation to standard error.
void allocation_counter_start(int32_t traces);

// Stops, and says how many allocations were made since the start; freeing is not counted.
int64_t allocation_counter_stop(void);

#endif
