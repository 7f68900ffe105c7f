// Loops that do nothing but what a processor is fastest at: the roofs of the roofline.
#ifndef CPEAK_H
#define CPEAK_H

#include <stddef.h>

// The widths that kernels are compiled for.
typedef enum cpeak_width {
  CPEAK_BASELINE = 0,  // four floats, whatever the architecture's least machine has
  CPEAK_AVX2 = 1,      // eight floats and FMA; x86-64 only
  CPEAK_AVX512 = 2     // sixteen floats; x86-64 only
} cpeak_width;

// Floating-point operations in one iteration of cpeak_fma; an FMA counts as two. 0 where the architecture lacks the width.
size_t cpeak_fma_flops(cpeak_width width);
// Runs independent chains of multiply and add in registers. The processor must have the width. The result means nothing.
float cpeak_fma(cpeak_width width, size_t iterations);
// Reads `count` floats once, a multiple of 128 at a 64-byte boundary. The result is a sum that keeps the loads alive.
float cpeak_read(cpeak_width width, const float *floats, size_t count);
// Copies `count` floats, a multiple of 128, between 64-byte boundaries. With `streams` stores go past the caches, which saves
// reading the lines written; the compiler may make the other a call of memcpy.
void cpeak_copy(cpeak_width width, float *to, const float *from, size_t count, int streams);

// Gives memory that was freed back to the system, where the C library can.
void cpeak_trim(void);

#endif
