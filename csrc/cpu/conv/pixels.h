// Reads rows of a tile from an image and writes them back.
#pragma once
#include "tile.h"
#include "transpose.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kLanes = Pack<float>::lanes;

// The channels in the lanes of a vector.
struct ChannelGroup {
  int64_t first;
  int count;
};

// Channels of the first or the second half.
DEAL_INLINE ChannelGroup lanes_of(const Halves& halves, int64_t group, bool second) {
  const int64_t left = (second ? halves.second : halves.first) - group;
  return {(second ? halves.first : 0) + group, left < 0 ? 0 : left < kLanes ? int(left) : kLanes};
}

// Whether both halves have whole vectors of contiguous channels here.
DEAL_INLINE bool are_whole(const Halves& halves, int64_t group, const Steps& steps) {
  return steps.channel == 1 && group + kLanes <= halves.second;
}

DEAL_INLINE Pack<float> load_some(const float* from, int64_t step, int count) {
  if (step == 1 && count == kLanes) return load(from);
  float some[kLanes] = {};
  for (int i = 0; i < count; ++i) some[i] = from[i * step];
  return load(some);
}

DEAL_INLINE Pack<float> load_row(const float* from, int step) {
  return step == 2 ? every_second(from) : load_some(from, step, kLanes);
}

DEAL_INLINE void store_some(float* to, int64_t step, int count, Pack<float> a) {
  if (step == 1 && count == kLanes) return store(to, a);
  float some[kLanes];
  store(some, a);
  for (int i = 0; i < count; ++i) to[i * step] = some[i];
}

// Reads one half of the channels into the real or the imaginary part of a row. `to` is the first of these parts.
DEAL_INLINE void read_pixels(const float* row, const Steps& steps, const Axis& columns, int tile, ChannelGroup lanes,
                             vector_f* to) {
  const float* const from = row + lanes.first * steps.channel;
  const auto one_by_one = [&](int begin, int end) DEAL_FLAT {
    for (int x = begin; x < end; ++x) {
      const int at = columns.at[x];
      to[2 * x] = at < 0 ? vector_f{} : load_some(from + at * steps.column, steps.channel, lanes.count).v;
    }
  };
  if (steps.column != 1 || columns.end - columns.begin < kLanes) return one_by_one(0, tile);
  one_by_one(0, columns.begin);
  for (int x = columns.begin; x < columns.end; x += kLanes) {
    if (x + kLanes > columns.end) x = columns.end - kLanes;
    Pack<float> block[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      block[i] = i < lanes.count ? load_row(from + columns.at[x] + i * steps.channel, columns.step) : Pack<float>{};
    transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) to[2 * (x + i)] = block[i].v;
  }
  one_by_one(columns.end, tile);
}

void read_row(const Source& s, const Halves& halves, int64_t group, int tile, int64_t y, Complex* row) {
  const ChannelGroup first = lanes_of(halves, group, false), second = lanes_of(halves, group, true);
  read_pixels(s.image + y * s.steps.row, s.steps, s.columns, tile, first, &row->re);
  read_pixels(s.image + y * s.steps.row, s.steps, s.columns, tile, second, &row->im);
  if (!s.mask) return;
  Complex mask[kMostTile];
  read_pixels(s.mask + y * s.steps.row, s.steps, s.columns, tile, first, &mask->re);
  read_pixels(s.mask + y * s.steps.row, s.steps, s.columns, tile, second, &mask->im);
  for (int x = 0; x < tile; ++x)
    write(row + x, {mask[x].re > 0 ? row[x].re : vector_f{}, mask[x].im > 0 ? row[x].im : vector_f{}});
}

// Writes values that are `step` apart, after bias, residual and activation.
DEAL_INLINE void finish(Pack<float> a, const Sink& s, Pack<float> bias, int64_t place, int64_t step, int count) {
  a = a + bias;
  if (s.residual) a = a + load_some(s.residual + place, step, count);
  store_some(s.image + place, step, count, s.relu ? at_least(0.0f, a) : a);
}

// Writes the pixels from `begin` to `end`, which are inside of the image. `from` is the real or imaginary part of a
// row.
DEAL_INLINE void write_pixels(const vector_f* from, const Sink& s, int64_t y, int begin, int end, ChannelGroup lanes) {
  if (lanes.count == 0) return;
  const int64_t place = y * s.steps.row + s.x * s.steps.column + lanes.first * s.steps.channel;
  const int64_t next = s.x_step * s.steps.column;
  const Pack<float> bias = s.bias ? load_some(s.bias + lanes.first, 1, lanes.count) : Pack<float>{};
  if (s.steps.channel == 1 || end - begin < kLanes) {
    for (int x = begin; x < end; ++x)
      finish({from[2 * x]}, s, bias, place + x * next, s.steps.channel, lanes.count);
    return;
  }
  for (int x = begin; x < end; x += kLanes) {
    if (x + kLanes > end) x = end - kLanes;
    Pack<float> block[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) block[i] = {from[2 * (x + i)]};
    transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i >= lanes.count) break;
      finish(block[i], s, Pack<float>{} + bias.v[i], place + i * s.steps.channel + x * next, next, kLanes);
    }
  }
}

int64_t first_at_least(int64_t bound, int64_t from, int64_t step) {
  return from >= bound ? 0 : (bound - from + step - 1) / step;
}

void write_row(const Complex* row, const Halves& halves, int64_t group, const Sink& s, int64_t i) {
  const ChannelGroup first = lanes_of(halves, group, false), second = lanes_of(halves, group, true);
  const int64_t y = s.y + i * s.y_step;
  int begin = 0, end = s.columns;
  if (s.frame) {
    const bool inside = y >= 0 && y < s.frame->height;
    const int64_t left = first_at_least(0, s.x, s.x_step), right = first_at_least(s.frame->width, s.x, s.x_step);
    begin = !inside ? end : left < end ? int(left) : end;
    end = right < begin ? begin : right < end ? int(right) : end;
    for (int x = 0; x < s.columns; ++x) {
      if (x >= begin && x < end) continue;
      float* const pixel = s.frame->pixels + s.frame->index(y, s.x + x * s.x_step) * s.channels;
      store_some(pixel + first.first, 1, first.count, {row[x].re});
      store_some(pixel + second.first, 1, second.count, {row[x].im});
    }
  }
  write_pixels(&row->re, s, y, begin, end, first);
  write_pixels(&row->im, s, y, begin, end, second);
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
