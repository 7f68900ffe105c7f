// Philox 4x32-10 and its transforms. Integers are plain C loops over blocks, which the compiler turns into vectors; floats use
// vf_add, vf_sub, vf_mul and vf_sqrt alone, each rounded (body.h), so that every instruction set gives the same bits.
// Coefficients from tools/fit_math.py.
#define RANDOM_BLOCKS_ 16  // side by side; a multiple of every VL

// word[j][b] = word j of block number block + b.
CK_INLINE void random_words_(const ck_random *call, uint64_t block, uint32_t word[4][RANDOM_BLOCKS_]) {
  const uint32_t high2 = (uint32_t)call->stream, high3 = (uint32_t)(call->stream >> 32);
  for (size_t b = 0; b < RANDOM_BLOCKS_; b++) {
    uint32_t c0 = (uint32_t)(block + b), c1 = (uint32_t)((block + b) >> 32), c2 = high2, c3 = high3;
    uint32_t k0 = (uint32_t)call->seed, k1 = (uint32_t)(call->seed >> 32);
#pragma clang loop unroll(full)
    for (int round = 0; round < 10; round++) {
      const uint64_t p0 = (uint64_t)0xD2511F53 * c0, p1 = (uint64_t)0xCD9E8D57 * c2;
      c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, c1 = (uint32_t)p1;
      c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1, c3 = (uint32_t)p0;
      k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    word[0][b] = c0, word[1][b] = c1, word[2][b] = c2, word[3][b] = c3;
  }
}

// c[0] + x (c[1] + x (...)), rounded after every step.
CK_INLINE vf random_poly_(const float *c, int degree, vf x) {
  vf p = vf_set1(c[degree]);
  for (int i = degree - 1; i >= 0; i--) p = vf_add(vf_mul(p, x), vf_set1(c[i]));
  return p;
}

// x = log(x) for positive normal x: x = 2^e (1 + f), 1 + f in [sqrt 1/2, sqrt 2), log(1 + f) = f - f^2 / 2 + f^3 P(f).
CK_INLINE void random_log_(float x[RANDOM_BLOCKS_]) {
  static const float c[] = {0x1.555554p-2f, -0x1.000226p-2f, 0x1.99a01cp-3f, -0x1.54728cp-3f,
                            0x1.22d936p-3f, -0x1.0d8232p-3f, 0x1.055e62p-3f, -0x1.38c910p-4f};
  float exponent[RANDOM_BLOCKS_];
  for (size_t b = 0; b < RANDOM_BLOCKS_; b++) {
    const uint32_t bits = ck_bits_(x[b]);
    const int32_t e = (int32_t)(bits - 0x3F3504F3) >> 23;  // 0x3F3504F3 is sqrt 1/2
    exponent[b] = (float)e;
    x[b] = ck_float_(bits - ((uint32_t)e << 23));
  }
  for (size_t b = 0; b < RANDOM_BLOCKS_; b += VL) {
    const vf e = vf_load(exponent + b), f = vf_sub(vf_load(x + b), vf_set1(1)), square = vf_mul(f, f);
    vf y = vf_mul(vf_mul(square, f), random_poly_(c, 7, f));
    y = vf_add(y, vf_mul(e, vf_set1(MATH_LN2_LO_)));
    y = vf_sub(y, vf_mul(square, vf_set1(0.5f)));
    y = vf_add(f, y);
    vf_store(x + b, vf_add(y, vf_mul(e, vf_set1(MATH_LN2_HI_))));
  }
}

// Box-Muller: from words u and v, sqrt(-2 log(u 2^-32)) times the cosine and the sine of v 2^-32 turns. u = 0 counts as 1.
CK_INLINE void random_pair_(const uint32_t *u, const uint32_t *v, float *cosine, float *sine) {
  static const float s[] = {0x1.921fb6p+2f, -0x1.4abc24p+5f, 0x1.4680a2p+6f, -0x1.3318dep+6f};
  static const float c[] = {-0x1.3bd3ccp+4f, 0x1.03c1aep+6f, -0x1.55b146p+6f, 0x1.d47d46p+5f};
  float length[RANDOM_BLOCKS_], turn[RANDOM_BLOCKS_], along[RANDOM_BLOCKS_], across[RANDOM_BLOCKS_];
  for (size_t b = 0; b < RANDOM_BLOCKS_; b++) {
    length[b] = (float)(u[b] | 1) * 0x1p-32f;
    // What is left of the angle after the nearest quarter turn: at most an eighth.
    turn[b] = (float)(int32_t)(v[b] - ((v[b] + 0x20000000) & 0xC0000000)) * 0x1p-32f;
  }
  random_log_(length);
  for (size_t b = 0; b < RANDOM_BLOCKS_; b += VL) {
    const vf t = vf_load(turn + b), square = vf_mul(t, t);
    const vf r = vf_sqrt(vf_mul(vf_load(length + b), vf_set1(-2)));
    vf_store(along + b, vf_mul(r, vf_add(vf_mul(square, random_poly_(c, 3, square)), vf_set1(1))));
    vf_store(across + b, vf_mul(r, vf_mul(t, random_poly_(s, 3, square))));
  }
  for (size_t b = 0; b < RANDOM_BLOCKS_; b++) {
    const uint32_t quarters = (v[b] + 0x20000000) >> 30, swap = 0u - (quarters & 1);
    const uint32_t x = ck_bits_(along[b]), y = ck_bits_(across[b]);
    cosine[b] = ck_float_(((x & ~swap) | (y & swap)) ^ ((quarters + 1) & 2) << 30);
    sine[b] = ck_float_(((y & ~swap) | (x & swap)) ^ (quarters & 2) << 30);
  }
}

// RANDOM_BLOCKS_ blocks into y[4 RANDOM_BLOCKS_].
CK_INLINE void random_group_(const ck_distribution kind, const ck_random *call, uint64_t block, float *y) {
  uint32_t word[4][RANDOM_BLOCKS_];
  float value[4][RANDOM_BLOCKS_];
  random_words_(call, block, word);
  if (kind == CK_RANDOM_BITS) memcpy(value, word, sizeof value);
  if (kind == CK_RANDOM_NORMAL) {
    random_pair_(word[0], word[1], value[0], value[1]);
    random_pair_(word[2], word[3], value[2], value[3]);
  }
  for (size_t j = 0; j < 4; j++) {
    if (kind == CK_RANDOM_UNIFORM)
      for (size_t b = 0; b < RANDOM_BLOCKS_; b++) value[j][b] = (float)(int32_t)(word[j][b] >> 8) * 0x1p-24f;
    if (kind == CK_RANDOM_GUMBEL) {
      for (size_t b = 0; b < RANDOM_BLOCKS_; b++) value[j][b] = (float)(int32_t)(word[j][b] >> 9 << 1 | 1) * 0x1p-24f;
      random_log_(value[j]);
      for (size_t b = 0; b < RANDOM_BLOCKS_; b++) value[j][b] = -value[j][b];
      random_log_(value[j]);
      for (size_t b = 0; b < RANDOM_BLOCKS_; b++) value[j][b] = -value[j][b];
    }
  }
  for (size_t b = 0; b < RANDOM_BLOCKS_; b++)
    for (size_t j = 0; j < 4; j++) y[4 * b + j] = value[j][b];
}

CK_INLINE void random_blocks_(const ck_distribution kind, const ck_random *call, uint64_t block, size_t blocks, float *y) {
  size_t b = 0;
  for (; b + RANDOM_BLOCKS_ <= blocks; b += RANDOM_BLOCKS_) random_group_(kind, call, block + b, y + 4 * b);
  if (b < blocks) {
    float last[4 * RANDOM_BLOCKS_];
    random_group_(kind, call, block + b, last);
    memcpy(y + 4 * b, last, 4 * (blocks - b) * sizeof *y);
  }
}
void CK_NAME(f32_random)(const ck_random *call, uint64_t block, size_t blocks, float *y) {
  if (call->distribution == CK_RANDOM_BITS) random_blocks_(CK_RANDOM_BITS, call, block, blocks, y);
  if (call->distribution == CK_RANDOM_UNIFORM) random_blocks_(CK_RANDOM_UNIFORM, call, block, blocks, y);
  if (call->distribution == CK_RANDOM_NORMAL) random_blocks_(CK_RANDOM_NORMAL, call, block, blocks, y);
  if (call->distribution == CK_RANDOM_GUMBEL) random_blocks_(CK_RANDOM_GUMBEL, call, block, blocks, y);
}
