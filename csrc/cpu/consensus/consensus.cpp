// A block of columns at a time: its rows stay in the cache through all rounds of the search. Refining a column needs the
// values of its neighbours, so all columns are searched before any is refined.
#include "../../types.h"

#include "../common/kernels.h"
#include "../common/parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

using V = Pack<float>;

constexpr int kBlock = 32;  // columns
constexpr int kReach = 4;   // columns to each side that are neighbours
constexpr int kFirst = 16;  // where the block begins in a row with its neighbours: at a whole vector
constexpr int kWide = kBlock + 2 * kFirst;
constexpr int64_t kValuesWorthAThread = 1 << 14;
constexpr float kScales[] = {20, 10, 5, 2, 1};
constexpr int kRounds = 5, kFromQuartiles = 2, kFromNeighbours = 3;
constexpr float kNeighbourScale = 2, kTiny = 1e-9f;

DEAL_INLINE V nearness(V x, V value, float per_tolerance) {
  const V apart = (x - value) * per_tolerance;
  return 1.0f / (1.0f + apart * apart);
}

// The columns of one block of one image, copied side by side, zero beyond the image.
class Block {
 public:
  Block(const Consensus& a, float* memory)
      : a_(a), x_(memory), weights_(x_ + a.rows * kWide), keys_(reinterpret_cast<uint32_t*>(weights_ + a.rows * kBlock)) {}

  static int64_t floats(int64_t rows) { return rows * (kWide + 2 * kBlock); }

  // Takes in the rows of block `unit`.
  void read(int64_t unit) {
    const int64_t blocks = (a_.columns - 1) / kBlock + 1;
    image_ = unit / blocks;
    begin_ = unit % blocks * kBlock;
    count_ = int(a_.columns - begin_ < kBlock ? a_.columns - begin_ : kBlock);
    per_tolerance_ = 1 / a_.tolerance[image_];
    const int64_t left = begin_ < kReach ? begin_ : kReach;
    const int64_t after = a_.columns - begin_ - count_, right = after < kReach ? after : kReach;
    for (int64_t r = 0; r < a_.rows; ++r) {
      const int64_t at = (image_ * a_.rows + r) * a_.columns + begin_;
      float *const x = x_ + r * kWide, *const weights = weights_ + r * kBlock;
      __builtin_memset(x, 0, kWide * sizeof(float));
      __builtin_memset(weights, 0, kBlock * sizeof(float));
      __builtin_memcpy(x + kFirst - left, a_.x + at - left, (left + count_ + right) * sizeof(float));
      __builtin_memcpy(weights, a_.weights + at, count_ * sizeof(float));
    }
    left_ = int(left), right_ = int(right);
  }

  // Finds the value with the largest support.
  void search(float* result) {
    float found[kBlock];
    make_keys();
    for (int i = 0; i < kBlock; i += V::lanes) {
      V best{}, most{};
      const auto follow = [&](V start, int rounds) DEAL_FLAT {
        const V value = settled(i, start, rounds);
        const V support = supported(i, value);
        const auto larger = support > most;
        best = select(larger, value, best);
        most = select(larger, support, most);
      };
      follow(mean(i), kRounds);
      follow(ranked(i, a_.lower), kFromQuartiles);
      follow(ranked(i, a_.upper), kFromQuartiles);
      store(found + i, best);
    }
    write(found, result);
  }

  // Searches near the values before, with a low weight where neighbours disagree.
  void refine(const float* before, float* result) {
    float values[kWide] = {}, inside[kWide] = {}, share[kBlock], found[kBlock];
    const int64_t at = image_ * a_.columns + begin_;
    for (int i = -left_; i < count_ + right_; ++i) {
      values[kFirst + i] = before[at + i];
      inside[kFirst + i] = 1;
    }
    for (int i = 0; i < kBlock; ++i) {
      float columns = 0;
      for (int k = -kReach; k <= kReach; ++k) columns += inside[kFirst + i + k];
      share[i] = columns > 0 ? 1 / columns : 0;
    }
    for (int64_t r = 0; r < a_.rows; ++r) {
      float near[kWide];
      for (int i = 0; i < kWide; i += V::lanes) {
        const V agreement = nearness(load(x_ + r * kWide + i), load(values + i), per_tolerance_ / kNeighbourScale);
        store(near + i, agreement * load(inside + i));
      }
      float* const weights = weights_ + r * kBlock;
      for (int i = 0; i < kBlock; i += V::lanes) {
        V total{};
        for (int k = -kReach; k <= kReach; ++k) total = total + load(near + kFirst + i + k);
        const V mean = total * load(share + i), square = mean * mean;
        store(weights + i, load(weights + i) * (square * square));
      }
    }
    for (int i = 0; i < kBlock; i += V::lanes) store(found + i, settled(i, load(values + kFirst + i), kFromNeighbours));
    write(found, result);
  }

 private:
  DEAL_INLINE V row(int64_t r, int i) const { return load(x_ + r * kWide + kFirst + i); }
  DEAL_INLINE V weight(int64_t r, int i) const { return load(weights_ + r * kBlock + i); }

  DEAL_INLINE V mean(int i) const {
    V sum{}, total{};
    for (int64_t r = 0; r < a_.rows; ++r) {
      sum = sum + weight(r, i) * row(r, i);
      total = total + weight(r, i);
    }
    return sum / (total + kTiny);
  }

  // The robust mean of the last rounds, which begin at a value.
  DEAL_INLINE V settled(int i, V value, int rounds) const {
    for (int round = kRounds - rounds; round < kRounds; ++round) {
      const float per_tolerance = per_tolerance_ / kScales[round];
      V sum{}, total{};
      for (int64_t r = 0; r < a_.rows; ++r) {
        const V near = weight(r, i) * nearness(row(r, i), value, per_tolerance);
        sum = sum + near * row(r, i);
        total = total + near;
      }
      value = sum / (total + kTiny);
    }
    return value;
  }

  DEAL_INLINE V supported(int i, V value) const {
    V total{};
    for (int64_t r = 0; r < a_.rows; ++r) total = total + nearness(row(r, i), value, per_tolerance_);
    return total;
  }

  // Integers in the order of the values.
  void make_keys() {
    for (int64_t r = 0; r < a_.rows; ++r)
      for (int i = 0; i < kBlock; i += V::lanes) {
        const vector_u bits = (vector_u)row(r, i).v;
        const vector_u negative = vector_u{} - (bits >> 31);
        const vector_u keys = bits ^ (negative | 0x80000000u);
        __builtin_memcpy(keys_ + r * kBlock + i, &keys, sizeof keys);
      }
  }

  // The value of a rank among the rows of each column, bit by bit: the largest key that at most `rank` keys are below.
  DEAL_INLINE V ranked(int i, int64_t rank) const {
    vector_u key{};
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
      const vector_u candidate = key | bit;
      vector_u below{};
      for (int64_t r = 0; r < a_.rows; ++r) {
        vector_u other;
        __builtin_memcpy(&other, keys_ + r * kBlock + i, sizeof other);
        below -= (vector_u)(other < candidate);
      }
      key = below <= uint32_t(rank) - vector_u{} ? candidate : key;
    }
    const vector_u positive = vector_u{} - (key >> 31);
    return {(vector_f)(key ^ (~positive | 0x80000000u))};
  }

  void write(const float* found, float* result) const {
    __builtin_memcpy(result + image_ * a_.columns + begin_, found, count_ * sizeof(float));
  }

  const Consensus& a_;
  float *x_, *weights_;
  uint32_t* keys_;
  int64_t image_, begin_;
  int count_, left_, right_;
  float per_tolerance_;
};

template <class Step>
void each_block(const Consensus& a, int threads, const Step& step) {
  const int64_t units = a.batch * ((a.columns - 1) / kBlock + 1);
  const int useful = useful_threads(a.batch * a.rows * a.columns, kValuesWorthAThread, threads);
  parallel_for(units, 1, useful, [&](int64_t begin, int64_t end, int) {
    const Buffer<float> memory(Block::floats(a.rows), Fill::none);
    Block block(a, memory.get());
    for (int64_t unit = begin; unit < end; ++unit) {
      block.read(unit);
      step(block);
    }
  });
}

}  // namespace

void consensus(const Consensus& a, int threads) {
  const Buffer<float> between(a.batch * a.columns, Fill::none);
  each_block(a, threads, [&](Block& block) { block.search(a.out); });
  each_block(a, threads, [&](Block& block) { block.refine(a.out, between.get()); });
  each_block(a, threads, [&](Block& block) { block.refine(between.get(), a.out); });
}

}  // namespace DEAL_ISA
}  // namespace deal
