// A thread walks down a strip of columns, ten rows at a time. It filters each new row horizontally and keeps the last
// filtered rows. The vertical filter gives the moments, and these a row of the map. For a gradient, the slopes of the
// map are filtered in the same way, five rows behind.
#include "../../types.h"

#include "../../math/ssim.h"
#include "../common/kernels.h"
#include "../common/parallel.h"
#include "../common/rows.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kRows = 2 * kReach;  // rows at a time: the height of a window minus one
constexpr int kHeld = 3 * kRows;   // rows held; they are moved up after every second group of rows
constexpr int64_t kStrip = 256;    // most columns of a strip
constexpr int kNear = 64;          // columns filtered at a time, so that their rows stay in the first-level cache
constexpr int kWidth = 288;        // length of a buffered row: a strip, two windows and a partial vector
constexpr int kFew = 16;           // fewer rows are not worth a thread
constexpr int64_t kPixelsWorthAThread = 1 << 14;

// Rows of four images, filtered horizontally.
template <class S>
struct HeldRows {
  S at[4][kHeld][kWidth];
};

template <class S>
struct StripScratch {
  HeldRows<S> images, slopes;
  S down[4][kRows][kNear];  // filtered in both directions
  S row[4][kWidth];         // not yet filtered
  S distance[kWidth];
  S map[kRows][kWidth], weights[kRows][kWidth];
  S a[kRows][kWidth], b[kRows][kWidth];  // pixels, then their gradients
};

// The horizontal (step 1) or vertical filter, whose first value is at p.
template <int step, class S>
DEAL_INLINE Pack<S> filtered_from(const S* p) {
  return filtered<Pack<S>>([=](int k) DEAL_FLAT { return load(p + (kReach + k) * step); });
}

template <class S>
void filter_along(const S* row, S* result, int count) {
  for (int i = 0; i < count; i += Pack<S>::lanes) store(result + i, filtered_from<1>(row + i));
}

int within(int64_t at, int64_t most) { return int(at < 0 ? 0 : at > most ? most : at); }

template <class S>
void filter_down(const S* from, int rows, int count, S (*result)[kNear]) {
  for (int r = 0; r < rows; ++r, from += kWidth)
    for (int i = 0; i < count; i += Pack<S>::lanes) store(result[r] + i, filtered_from<kWidth>(from + i));
}

template <class S>
class StripWalk {
 public:
  StripWalk(const Ssim& a, StripScratch<S>& scratch, int64_t plane, int64_t begin, int64_t end, double* sums)
      : a_(a),
        u_(scratch),
        plane_(plane),
        begin_(begin),
        width_(int(end - begin)),
        sums_(sums),
        gradient_(a.grad_a || a.grad_b),
        reach_(gradient_ ? kReach : 0),
        first_(begin - reach_),
        count_(width_ + 2 * reach_),
        factor_(a.grad && !a.grad_of_map ? *static_cast<const S*>(a.grad) : S(1)) {
    for (auto& row : u_.weights)
      for (S& weight : row) weight = S(a.structure) * factor_;
  }

  // Computes the rows from `top` up to `bottom`.
  void run(int64_t top, int64_t bottom) {
    const int64_t last = bottom + reach_;
    int held = 0;  // the first row that windows still need
    for (int r = 0; r < kRows; ++r) take_in(top - reach_ - kReach + r, r, top, bottom);
    for (int64_t y = top - reach_; y < last; y += kRows) {
      const int rows = last - y < kRows ? int(last - y) : kRows;
      for (int r = 0; r < rows; ++r) take_in(y + kReach + r, held + kRows + r, top, bottom);
      const int slopes = held + (y < top ? 0 : kRows);
      gradient_ ? map_rows<true>(y, rows, held, slopes) : map_rows<false>(y, rows, held, slopes);
      for (int r = 0; r < rows; ++r) {
        if (y + r >= top && y + r < bottom) finish_map(y + r, u_.map[r]);
        if (gradient_) finish_slopes(y + r, slopes + r);
      }
      if (gradient_ && y < top) {  // so far there are only the slopes of the first rows
        move_up(u_.images, kRows);
        continue;
      }
      if (gradient_) gradient_rows(y - kReach, rows, held);
      held += kRows;
      if (held + kRows == kHeld) {
        move_up(u_.images, held);
        if (gradient_) move_up(u_.slopes, held);
        held = 0;
      }
    }
  }

 private:
  static void move_up(HeldRows<S>& rows, int held) {
    for (auto& image : rows.at) __builtin_memcpy(image[0], image[held], sizeof image[0] * kRows);
  }

  int64_t pixel(int64_t y, int64_t x) const { return (plane_ * a_.height + y) * a_.width + x; }

  void take_in(int64_t y, int slot, int64_t top, int64_t bottom) {
    auto& to = u_.images.at;
    if (y < 0 || y >= a_.height) {
      for (auto& image : to) clear(image[slot], 0, kWidth);
      return;
    }
    const int64_t left = first_ - kReach;
    const int all = count_ + 2 * kReach;
    const int begin = within(-left, all), end = within(a_.width - left, all);
    S *const a = u_.row[0], *const b = u_.row[1], *const squares = u_.row[2], *const product = u_.row[3];
    for (auto& row : u_.row) {
      clear(row, 0, begin);
      clear(row, end, kWidth);
    }
    read_row(a_.dtype, a_.a, pixel(y, left + begin), a + begin, end - begin);
    read_row(a_.dtype, a_.b, pixel(y, left + begin), b + begin, end - begin);
    for (int i = 0; i < all; i += Pack<S>::lanes) {
      const Pack<S> one = load(a + i), other = load(b + i);
      store(squares + i, one * one + other * other);
      store(product + i, one * other);
    }
    if (sums_ && a_.pixel != 0 && y >= top && y < bottom) {
      S* const distance = u_.distance;
      const int own = int(begin_ - left);
      for (int i = 0; i < width_; i += Pack<S>::lanes)
        store(distance + i, absolute(load(a + own + i) - load(b + own + i)));
      sums_[y] += a_.pixel * sum(distance, width_);
    }
    for (int i = 0; i < 4; ++i) filter_along(u_.row[i], to[i][slot], count_);
  }

  // Filters images vertically and calls body(row, column, column in `down`) for all vectors, a few columns at a time.
  // `a` and `b`: whether the first and the second image are needed.
  template <class Body>
  DEAL_INLINE void each_vector(const HeldRows<S>& from, int slot, int rows, int columns, bool a, bool b,
                               const Body& body) {
    for (int near = 0; near < columns; near += kNear) {
      const int count = columns - near < kNear ? columns - near : kNear;
      for (int image = 0; image < 4; ++image)
        if (image > 1 || (image == 0 ? a : b)) filter_down(&from.at[image][slot][near], rows, count, u_.down[image]);
      for (int r = 0; r < rows; ++r)
        for (int i = 0; i < count; i += Pack<S>::lanes) body(r, near + i, i);
    }
  }

  bool in_map(int64_t y) const { return y >= a_.margin && y < a_.height - a_.margin; }
  int map_begin() const { return within(a_.margin - first_, count_); }
  int map_end() const { return within(a_.width - a_.margin - first_, count_); }
  // Offset in the map of the first column, which may lie outside of it.
  int64_t map_pixel(int64_t y) const {
    return (plane_ * (a_.height - 2 * a_.margin) + y - a_.margin) * (a_.width - 2 * a_.margin) + first_ - a_.margin;
  }

  // Computes rows of the map from the images' rows at `slot`, and their slopes.
  template <bool gradient>
  void map_rows(int64_t y, int rows, int slot, int slope_slot) {
    auto& to = u_.slopes.at;
    const S c1 = S(a_.c1), c2 = S(a_.c2);
    const int begin = map_begin(), end = map_end();
    for (int r = 0; gradient && a_.grad_of_map && r < rows; ++r)
      if (in_map(y + r)) read_row(a_.dtype, a_.grad, map_pixel(y + r) + begin, u_.weights[r] + begin, end - begin);
    each_vector(u_.images, slot, rows, count_, true, true, [&](int r, int i, int k) DEAL_FLAT {
      const auto down = [&](int image) DEAL_FLAT { return load(u_.down[image][r] + k); };
      const Moments<Pack<S>> m = {down(0), down(1), down(2), down(3)};
      if constexpr (gradient) {
        const auto result = similarity(m, c1, c2, load(u_.weights[r] + i));
        store(u_.map[r] + i, result.value);
        store(to[0][slope_slot + r] + i, result.slope.a);
        store(to[1][slope_slot + r] + i, result.slope.b);
        store(to[2][slope_slot + r] + i, result.slope.squares);
        store(to[3][slope_slot + r] + i, result.slope.product);
      } else {
        store(u_.map[r] + i, similarity(m, c1, c2));
      }
    });
  }

  void finish_map(int64_t y, const S* map) {
    if (!in_map(y)) return;
    const int own = int(begin_ - first_), begin = own > map_begin() ? own : map_begin();
    const int count = (own + width_ < map_end() ? own + width_ : map_end()) - begin;
    if (count <= 0) return;
    if (sums_) sums_[y] += a_.structure * sum(map + begin, count);
    if (a_.map) write_row(a_.dtype, map + begin, a_.map, map_pixel(y) + begin, count);
  }

  // Filters a row of slopes horizontally. Slopes are zero where the map has no value.
  void finish_slopes(int64_t y, int slot) {
    for (int i = 0; i < 4; ++i) {
      S* const row = u_.slopes.at[i][slot];
      if ((i == 0 && !a_.grad_a) || (i == 1 && !a_.grad_b)) continue;
      if (!in_map(y)) {
        clear(row, 0, kWidth);
        continue;
      }
      clear(row, 0, map_begin());
      clear(row, map_end(), kWidth);
      filter_along(row, row, width_);
    }
  }

  void gradient_rows(int64_t y, int rows, int slot) {
    const S distance = S(a_.pixel) * factor_;
    for (int r = 0; r < rows; ++r) {
      read_row(a_.dtype, a_.a, pixel(y + r, begin_), u_.a[r], width_);
      read_row(a_.dtype, a_.b, pixel(y + r, begin_), u_.b[r], width_);
    }
    each_vector(u_.slopes, slot, rows, width_, a_.grad_a, a_.grad_b, [&](int r, int i, int k) DEAL_FLAT {
      const auto down = [&](int image) DEAL_FLAT { return load(u_.down[image][r] + k); };
      const Pack<S> squares = down(2), product = down(3), a = load(u_.a[r] + i), b = load(u_.b[r] + i);
      const Pack<S> apart = distance_gradient(a, b, distance);
      if (a_.grad_a) store(u_.a[r] + i, similarity_gradient(down(0), squares, product, a, b) + apart);
      if (a_.grad_b) store(u_.b[r] + i, similarity_gradient(down(1), squares, product, b, a) - apart);
    });
    for (int r = 0; r < rows; ++r) {
      if (a_.grad_a) write_row(a_.dtype, u_.a[r], a_.grad_a, pixel(y + r, begin_), width_);
      if (a_.grad_b) write_row(a_.dtype, u_.b[r], a_.grad_b, pixel(y + r, begin_), width_);
    }
  }

  const Ssim& a_;
  StripScratch<S>& u_;
  const int64_t plane_, begin_;
  const int width_;
  double* const sums_;  // by row; null if no loss is computed
  const bool gradient_;
  const int reach_;  // of the windows that a pixel's gradient depends on
  const int64_t first_;
  const int count_;  // number of columns of the map that are needed, from `first_` on
  const S factor_;
};

template <class S>
void walk(const Ssim& a, int threads) {
  const int64_t strips = (a.width - 1) / kStrip + 1, strip = (a.width - 1) / strips + 1;
  const int64_t rows = a.planes * strips * a.height;
  const Buffer<double> sums(a.loss ? rows : 0, Fill::zeros);
  const int useful = useful_threads(a.planes * a.height * a.width, kPixelsWorthAThread, threads);
  parallel_for(rows, kFew, useful, [&](int64_t begin, int64_t end, int) {
    const Buffer<StripScratch<S>> scratch(1, Fill::zeros);
    while (begin < end) {
      const int64_t unit = begin / a.height, top = begin % a.height, x = unit % strips * strip;
      const int64_t bottom = top + (end - begin) < a.height ? top + (end - begin) : a.height;
      if (x < a.width)
        StripWalk<S>(a, scratch[0], unit / strips, x, x + strip < a.width ? x + strip : a.width,
                     a.loss ? sums.get() + unit * a.height : nullptr)
            .run(top, bottom);
      begin += bottom - top;
    }
  });
  if (!a.loss) return;
  double total = 0;
  for (int64_t i = 0; i < rows; ++i) total += sums[i];
  *static_cast<S*>(a.loss) = S(a.offset + total);
}

}  // namespace

void ssim(const Ssim& a, int threads) {
  a.dtype == DType::float64 ? walk<double>(a, threads) : walk<float>(a, threads);
}

}  // namespace DEAL_ISA
}  // namespace deal
