// Storage types: every half and bfloat16 pattern, and floats on both sides of every midpoint between them.
#include "definitions.h"

static const ck_dtype types[] = {CK_F32, CK_BF16, CK_F16};

// Lengths and places, f32 included: exact on the way in, and nearest on the way out.
static void convert_lengths(test *t, int narrows) {
  for (size_t k = 0; k < COUNT(types); k++)
    for (size_t n = 0; n <= 67; n++)
      for (int place = AT_END; place < PLACES - 1; place++) {
        situation(t, place, "type %d n=%zu place=%d", types[k], n, place);
        operand *x = matrix(t, narrows ? CK_F32 : types[k], 1, n, n, 8);
        operand *y = matrix(t, narrows ? types[k] : CK_F32, 1, n, n, 8);
        y->written = 1;
        seal(t);
        if (narrows)
          t->table->f32_narrow(types[k], n, floats(x), y->at);
        else
          t->table->f32_widen(types[k], n, x->at, floats(y));
        check_untouched(t);
        for (size_t j = 0; j < n; j++)
          if (element(y, 0, j) != rounded(y->type, element(x, 0, j))) fail(t, "element %zu: %.9g", j, element(y, 0, j));
      }
}

enum { PATTERNS = 1 << 16 };

static int same(double a, double b) { return isnan(a) ? isnan(b) : a == b && signbit(a) == signbit(b); }

void check_widen(test *t) {
  convert_lengths(t, 0);
  for (size_t k = 1; k < COUNT(types); k++) {
    situation(t, AT_END, "every pattern of type %d", types[k]);
    operand *x = matrix(t, types[k], 1, PATTERNS, PATTERNS, 0), *y = matrix(t, CK_F32, 1, PATTERNS, PATTERNS, 0);
    for (uint32_t bits = 0; bits < PATTERNS; bits++) ((uint16_t *)x->at)[bits] = (uint16_t)bits;
    t->table->f32_widen(types[k], PATTERNS, x->at, floats(y));
    for (uint32_t bits = 0; bits < PATTERNS; bits++)
      if (!same(element(y, 0, bits), decoded(types[k], bits))) fail(t, "%04x gives %.9g", bits, element(y, 0, bits));
  }
}

void check_narrow(test *t) {
  convert_lengths(t, 1);
  // Each value and the midpoint to the next pattern, then the floats below them and above them.
  for (size_t k = 1; k < COUNT(types); k++)
    for (int nudge = -1; nudge <= 1; nudge++) {
      situation(t, AT_END, "floats around every pattern of type %d, nudge %d", types[k], nudge);
      operand *x = matrix(t, CK_F32, 1, 2 * PATTERNS, 2 * PATTERNS, 0),
              *y = matrix(t, types[k], 1, 2 * PATTERNS, 2 * PATTERNS, 0);
      float *values = x->at;
      for (uint32_t bits = 0; bits < PATTERNS; bits++) {
        const double value = decoded(types[k], bits), next = decoded(types[k], bits + 1);
        values[2 * bits] = (float)value, values[2 * bits + 1] = (float)((value + next) / 2);
      }
      for (size_t j = 0; j < 2 * PATTERNS; j++)
        if (nudge) values[j] = nextafterf(values[j], nudge * INFINITY);
      t->table->f32_narrow(types[k], 2 * PATTERNS, values, y->at);
      for (size_t j = 0; j < 2 * PATTERNS; j++)
        if (!same(element(y, 0, j), rounded(types[k], values[j]))) fail(t, "%a gives %a", values[j], element(y, 0, j));
    }
}
