// The functions over arrays on one instruction set, named by ISA; compiled once for each with its target's flags.
#include "../../../CKernels/body/body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(text) #text
#define TEXT(text) TEXT_(text)
#include TEXT(JOIN(vec, ISA).h)

#include "../../../CKernels/body/math.h"

// y[n] = f(x[n]), n a multiple of every vector's lanes.
#define FUNCTION(name, f, inputs, exact, allowed)                          \
  void JOIN(name, ISA)(size_t n, const float *x, float *y) {               \
    for (size_t j = 0; j < n; j += VL) vf_store(y + j, f(vf_load(x + j))); \
  }
#include "functions.inc"
