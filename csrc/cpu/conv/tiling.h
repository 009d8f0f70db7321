// How an image is cut into tiles. The inputs of tiles overlap, their results do not. With dilation d, a tile takes
// every d-th pixel.
#pragma once
#include "../../math/padding.h"
#include "tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// The tiles along one axis. With dilation, tiles of neighbouring pixels follow each other.
struct AxisTiles {
  int64_t length, dilation;
  int step;  // pixels of the result of a tile

  // The first `longer` phases have a pixel more than the others, which have none if the dilation exceeds the length.
  int64_t count() const {
    const int64_t least = length / dilation, longer = length % dilation;
    return longer * ((least + step) / step) + (dilation - longer) * ((least + step - 1) / step);
  }
  int64_t first(int64_t tile) const { return tile / dilation * step * dilation + tile % dilation; }
  int yields(int64_t from) const {
    const int64_t left = (length - from + dilation - 1) / dilation;
    return left < step ? int(left) : step;
  }
};

struct TileOrigin {
  int64_t image, y, x;
};

struct Tiling {
  int64_t batch;
  AxisTiles rows, columns;

  int64_t count() const { return batch * rows.count() * columns.count(); }
  TileOrigin operator[](int64_t tile) const {
    const int64_t across = columns.count(), down = rows.count();
    return {tile / across / down, rows.first(tile / across % down), columns.first(tile % across)};
  }
};

constexpr int64_t kEndless = int64_t(1) << 40;

// The pixels of a tile from `first` on, for an image with `before` pixels of padding before it and `after` behind it.
Axis axis(int64_t first, int64_t step, int count, int64_t length, int64_t before, int64_t after, Padding mode) {
  Axis axis;
  axis.begin = axis.end = 0;
  axis.step = int(step);
  for (int i = 0; i < kMostTile; ++i) {
    int64_t at = first + i * step - before;
    if (i >= count || at < -before || at >= length + after) at = -1;
    else if (at >= 0 && at < length) {
      if (axis.begin == axis.end) axis.begin = i;
      axis.end = i + 1;
    } else at = pixel_at(at, length, mode);
    axis.at[i] = int(at);
  }
  return axis;
}

Steps steps_of(int64_t channels, int64_t height, int64_t width, bool channels_last) {
  return channels_last ? Steps{1, width * channels, channels} : Steps{height * width, width, 1};
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
