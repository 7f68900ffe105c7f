// The tile vocabulary in plain C, for checks where there is no matrix unit: the pseudo-code of Intel's manual, volume 2, with the
// same bits. vec/tile_amx.h has the same names.
//   tile_file                  eight tiles of 16 rows of 64 bytes; t, a, b and c number them
//   tile_begin, tile_end       around every use of tiles
//   tile_load, tile_store      rows `stride` bytes apart
//   tile_dot_bf16(f, c, a, b)  c[16, 16] f32 += a[16, 32] b[16 pairs of k, 16, 2]
//   tile_dot_s8(f, c, a, b)    c[16, 16] int32 += a[16, 64] b[16 fours of k, 16, 4]
typedef union tile_ {
  float f32[16][16];
  int32_t s32[16][16];
  uint16_t bf16[16][32];
  int8_t s8[16][64];
} tile_;

typedef struct tile_file {
  tile_ tile[8];
} tile_file;

CK_INLINE void tile_begin(tile_file *file) { memset(file, 0, sizeof *file); }
CK_INLINE void tile_end(tile_file *file) { (void)file; }
CK_INLINE void tile_zero(tile_file *file, int t) { memset(&file->tile[t], 0, sizeof(tile_)); }
CK_INLINE void tile_load(tile_file *file, int t, const void *p, size_t stride) {
  for (size_t r = 0; r < 16; r++) memcpy(file->tile[t].s8[r], (const char *)p + r * stride, 64);
}
CK_INLINE void tile_store(const tile_file *file, int t, void *p, size_t stride) {
  for (size_t r = 0; r < 16; r++) memcpy((char *)p + r * stride, file->tile[t].s8[r], 64);
}

// What is below the normal range counts as 0, on the way in and on the way out.
CK_INLINE float tile_flushed_(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

// A tile of bf16 as floats, and whether products with its like are exact and their sums in the normal range.
CK_INLINE int tile_widened_(const tile_ *tile, float x[16][32]) {
  int plain = 1;
  for (size_t r = 0; r < 16; r++)
    for (size_t c = 0; c < 32; c++) {
      x[r][c] = tile_flushed_(ck_float_((uint32_t)tile->bf16[r][c] << 16));
      plain &= x[r][c] == 0 || (fabsf(x[r][c]) > 0x1p-50f && fabsf(x[r][c]) < 0x1p50f);
    }
  return plain;
}

// Even and odd k are summed apart, each product fused with its sum; the two sums are added, then their sum to c.
static __attribute__((noinline)) void tile_dot_bf16(tile_file *file, int c, int a, int b) {
  float x[16][32], y[16][32];
  const int x_plain = tile_widened_(&file->tile[a], x), plain = tile_widened_(&file->tile[b], y) && x_plain;
  for (size_t m = 0; m < 16; m++) {
    float sums[32] = {0};
    for (size_t k = 0; k < 16; k++)
      for (size_t n = 0; n < 32; n++) {
        const float by = x[m][2 * k + n % 2];
        sums[n] = plain ? by * y[k][n] + sums[n] : tile_flushed_(fmaf(by, y[k][n], sums[n]));
      }
    for (size_t n = 0; n < 16; n++) {
      const float sum = tile_flushed_(sums[2 * n] + sums[2 * n + 1]);
      file->tile[c].f32[m][n] = tile_flushed_(tile_flushed_(file->tile[c].f32[m][n]) + sum);
    }
  }
}

static __attribute__((noinline)) void tile_dot_s8(tile_file *file, int c, int a, int b) {
  for (size_t m = 0; m < 16; m++)
    for (size_t k = 0; k < 16; k++)
      for (size_t n = 0; n < 16; n++)
        for (size_t q = 0; q < 4; q++) file->tile[c].s32[m][n] += file->tile[a].s8[m][4 * k + q] * file->tile[b].s8[k][4 * n + q];
}
