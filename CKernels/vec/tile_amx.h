// The tile vocabulary on AMX. Names and rules as in tile_emulated.h. Tiles are numbered by constants, so all but two are macros.
typedef struct tile_file {
  char unused;
} tile_file;

// One palette for everything, all eight tiles whole: edges are padded where operands are packed.
CK_INLINE void tile_begin(tile_file *file) {
  static const _Alignas(64) struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } whole = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
  (void)file;
  _tile_loadconfig(&whole);
}
// Tiles in use slow down switches between threads.
CK_INLINE void tile_end(tile_file *file) {
  (void)file;
  _tile_release();
}
#define tile_zero(file, t) _tile_zero(t)
#define tile_load(file, t, p, stride) _tile_loadd(t, p, stride)
#define tile_store(file, t, p, stride) _tile_stored(t, p, stride)
#define tile_dot_bf16(file, c, a, b) _tile_dpbf16ps(c, a, b)
#define tile_dot_s8(file, c, a, b) _tile_dpbssd(c, a, b)
