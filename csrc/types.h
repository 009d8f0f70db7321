// What every kernel is given: plain sizes, strides and pointers, the same on a CPU and on a GPU. Python allocates and
// validates; kernels trust. A null pointer stands for a tensor that is absent, or for a result that is not computed.
//
// The state type is float64 for float64 tensors and float32 for all others.
#pragma once
#include <cstdint>

namespace deal {

enum class DType : int { float32, float16, bfloat16, float64 };

// lif: N neurons, T steps. The neurons of a step lie side by side and are numbered in memory order, or they lie in
// groups, each with its T steps: x, results and gradients, written [T, N] below, are then [N / group, T, group].

enum class Output : int { spikes, mean, packed, states, membranes };
enum class Charge : int { decay_input, decay, beta };
enum class Fire : int { ge, gt, levels };
enum class Reset : int { hard, soft, none, next_hard, next_soft, twice_soft };
enum class Surrogate : int {
  sigmoid, atan, triangle, rectangle, fast_sigmoid, erf, exponential, sides, window,
  given,  // by a tensor
};

struct Neuron {
  Charge charge;
  Fire fire;
  Reset reset;
  Surrogate surrogate;
  bool detach_reset;
  bool carries;      // gradients pass from a step to the one before
  bool rate;         // decay is 1 / tau
  bool own_amount;   // a soft reset subtracts `amount`, otherwise the threshold
  double decay;      // tau, 1 / tau, or beta for Charge::beta
  double threshold;
  double rest;       // the state that decays leads to
  double reset_to;   // the state after a hard reset
  double amount;
  double alpha, height, outside;  // the numbers of the surrogate, see math/surrogate.h
  double levels;     // the largest spike
  double scale;      // of the output
};

// One value for all neurons (channels == 1) or one per channel; neuron n belongs to channel (n / inner) % channels.
// Without data the constant in Neuron applies.
struct Parameter {
  const void* data = nullptr;
  int64_t channels = 1;
  int64_t inner = 1;
};

// The input is normalised as it is loaded, with one mean, scale and shift per channel. Without a mean, x is used as it
// is.
struct Norm {
  Parameter mean, scale, shift;
  const void* shortcut;  // [T, N] or [N] like x, its steps side by side: added after the norm; may be null
};

struct LifInput {
  Neuron neuron;
  DType dtype;
  Output output;
  int64_t steps, neurons;
  int64_t group;        // neurons that lie side by side: all, or a part with time_stride == group
  int64_t time_stride;  // elements between two steps of x; 0: the same input at every step
  const void* x;
  const void* v0;       // [N] of the state type; null: neurons start at rest
  Parameter decay, threshold;
  Norm norm;
};

struct LifForward : LifInput {
  void* out;  // [T, N]; [N] for the mean; [T, ceil(N / 8)] bytes for packed bits, where groups are whole bytes
  void* v;    // [N] final state
};

struct LifBackward : LifInput {
  bool constant;       // x is one input for all steps: grad_x is the sum over time
  const void* grad;    // like the output
  const void* grad_v;  // [N] gradient of the final state
  const void* slopes;  // [T, N] of the state type: the derivative of the spikes, for Surrogate::given
  void* grad_x;        // gradient of the normalised input where there is a norm
  void* grad_v0;       // [N]
  void *grad_decay, *grad_threshold;  // [N]: each neuron's contribution
  // With a norm: the sums of grad_x and of grad_x * (x - mean), [2, channels]; on a GPU each neuron's contribution,
  // [2, N], unless cuda::sums_by_channel.
  void* norm_sums;
};

// psn: h[t] = the sum over s of weight[t, s] x[s], plus bias[t]; the spikes are h >= 0. T steps, of which the first
// `skipped` have no output.

struct PsnInput {
  DType dtype;
  int64_t steps, neurons;
  int64_t group;        // as in lif; all neurons where steps are skipped
  int64_t time_stride;  // elements between two steps of x; all other tensors are contiguous in time
  int64_t skipped;
  int64_t band;         // step t has the weights of the steps from t - band + 1 to t; 0: of all steps
  bool sliding;         // weight is [band] and bias is [1], the same for all steps; else [T, T] and [T]
  const void *x, *weight, *bias;  // weight and bias are of the state type
};

struct PsnForward : PsnInput {
  bool membranes;  // out is h, in the state type
  void* out;       // [T - skipped, N]
};

struct PsnBackward : PsnInput {
  Surrogate surrogate;
  double alpha, height, outside;
  const void* grad;  // [T - skipped, N]
  void* grad_x;
  void *grad_weight, *grad_bias;  // on a CPU: like weight and bias
  void* grad_h;                   // on a GPU: [T - skipped, N] of the state type, of which they are sums
};

// multistate: neurons with several states, numbered as those of lif.

enum class Model : int { cuba, alif, lsnn, clif };
constexpr int kMostStates = 3, kMostParameters = 5;

struct MultistateInput {
  Model model;
  Neuron neuron;     // what spikes: its threshold is that of a step
  bool windowed;     // the surrogate derivative is 0 unless low < h < high
  double low, high;
  DType dtype;
  Output output;     // spikes, or states: the first of them
  int64_t steps, neurons;
  int64_t group;     // as in lif
  int64_t time_stride;
  const void* x;
  const void* starts[kMostStates];        // [N] each: the initial states; null: where neurons start
  Parameter parameters[kMostParameters];  // the threshold, the decay, and then those of the model
  double numbers[kMostParameters];        // in place of parameters without data
};

struct MultistateForward : MultistateInput {
  void* out;                  // [T, N]
  void* states[kMostStates];  // [N] each: the final states
};

struct MultistateBackward : MultistateInput {
  const void* grad;                        // like the output
  const void* grad_states[kMostStates];    // [N] each: gradients of the final states
  void* grad_x;
  void* grad_starts[kMostStates];          // [N] each
  void* grad_parameters[kMostParameters];  // [N] each: every neuron's contribution
};

// tdbn: a tensor is [steps, neurons] in memory order; neuron n belongs to channel (n / inner) % channels. Values per
// channel are of the state type.

struct TdbnInput {
  DType dtype;
  int64_t steps, neurons;
  int64_t time_stride;  // elements between two steps of x; all other tensors are contiguous in time
  int64_t channels, inner;
  const void* x;
};

struct TdbnMoments : TdbnInput {
  void *mean, *variance;  // [C]; the biased variance
};

// out = (x - mean) * scale + shift
struct TdbnNormalise : TdbnInput {
  const void *mean, *scale, *shift;  // [C]
  void* out;
};

// The sums of grad and of grad * (x - mean).
struct TdbnGradientSums : TdbnInput {
  const void *grad, *mean;
  void* sums;  // [2, C]
};

// out = (grad * direct + (x - mean) * by_variance) + by_mean
struct TdbnGradient : TdbnInput {
  const void *grad, *mean, *direct, *by_variance, *by_mean;
  void* out;  // may be grad
};

// Of every channel: weight / sqrt(variance + eps), one over that root, and variance * correction, the unbiased variance.
struct TdbnScale {
  DType dtype;  // of all values: float32 or float64
  int64_t channels;
  double eps, correction;
  const void *variance, *weight;  // [C]
  void* out;                      // [3, C]
};

// Of every channel: the factors of TdbnGradient, and the gradient of the weight.
struct TdbnFactors {
  DType dtype;
  int64_t channels;
  double share;  // minus one over the values of a channel in all processes; 0 where the statistics are constants
  const void *sums, *own;         // [2, C] over all processes, and of this one
  const void *weight, *inverse;   // [C]
  void* out;                      // [4, C]: direct, by_variance, by_mean, and the gradient of the weight
};

// degradation: images are [batch, channels, height, width].

enum class DegradationKind : int {
  identity,
  contrast,             // strength: the weight of the image in the blend
  saturation,           // strength: likewise
  sharpness,            // strength: likewise
  gaussian_blur,        // values: a standard deviation, [batch, stages]
  max_pool_resize,      // strength: the factor of the resize
  average_pool_resize,  // strength: likewise
  bicubic_resize,       // strength: likewise
  posterize,            // strength: the number of bits kept
  stripe,               // values: [batch, stages, width]
  row_stripe,           // values: [batch, stages, height]
  gain,                 // values: [batch, stages, width]
  noise,                // values: [batch, stages, channels, height, width]
  wide_blur,            // values: a standard deviation, [batch, stages]
  row_gain,             // values: [batch, stages, height]
  tone,                 // values: a gain and an offset, [batch, stages, 2]
  dead,                 // values: as for noise; NaN where a pixel is kept
  pattern,              // values: [batch, stages, height, width], added to every channel
  quantise,             // strength: the number of bits
  clip,
};

struct DegradationOp {
  DegradationKind kind;
  double strength;
  bool straight_through;  // posterize: use the gradient of the clamp before it
  const void* values;     // of the state type; all random numbers are drawn before the call
};

// For every sample and stage: y = the sum over all ops of weight * op(x). The next stage's x is this y.
struct DegradationInput {
  DType dtype;
  int64_t batch, channels, height, width, stages;
  int op_count;
  const DegradationOp* ops;
  const void* x;
  const void* weights;  // [batch, stages, op_count] of the state type
};

struct DegradationForward : DegradationInput {
  void* y;
  void* inputs;  // [stages - 1, batch, channels, height, width]: the inputs of all stages but the first
};

struct DegradationBackward : DegradationInput {
  const void* inputs;  // as the forward pass wrote them
  const void* grad;    // gradient of y
  void *grad_x, *grad_weights;
};

// ssim: images are contiguous, [planes, height, width].

// The map has a value at every pixel, or only at those at least `margin` pixels away from every edge.
struct Ssim {
  DType dtype;
  int64_t planes, height, width, margin;
  double c1, c2;
  const void *a, *b;
  void* map;  // [planes, height - 2 * margin, width - 2 * margin]

  // loss = offset + structure * the sum of the map + pixel * the sum of |a - b|
  double offset, structure, pixel;
  void* loss;  // one value of the state type; on a GPU one double per block, without the offset

  // Gradients of the loss, times `grad`.
  const void* grad;  // one value of the state type, or one per value of the map; null: 1
  bool grad_of_map;
  void *grad_a, *grad_b;
};

// pad, on a GPU alone: images are [planes, height, width, inner] in memory: a plane is a channel and inner is 1, or they
// are channels-last, a plane is a sample and inner is the number of channels.

enum class Padding : int { zeros, reflect, replicate };

struct PadShape {
  DType dtype;
  int64_t planes, height, width, inner;  // of the image without padding
  int64_t top, bottom, left, right;      // reflected padding is smaller than the image
  Padding mode;

  int64_t padded_height() const { return height + top + bottom; }
  int64_t padded_width() const { return width + left + right; }
};

struct PadForward : PadShape {
  const void* x;
  void* out;
};

// The gradient of a pixel is the sum over all positions that read it, row by row.
struct PadBackward : PadShape {
  const void* grad;
  void* grad_x;
};

// consensus, on the CPU alone: x and weights are contiguous, [batch, rows, columns].

struct Consensus {
  int64_t batch, rows, columns;
  const float *x, *weights;
  const float* tolerance;  // [batch]
  int64_t lower, upper;    // the ranks of the quartiles among the rows
  float* out;              // [batch, columns]
};

// conv, on the CPU alone: images are [batch, channels, height, width] of float32, contiguous or channels-last.
// out(p) = the sum over kernel positions k of weight(k) * padded(p + dilation * k), with stride 1.

struct ConvShape {
  int64_t batch, in_channels, out_channels;
  int64_t height, width;  // of the input
  int64_t kernel_h, kernel_w, dilation_h, dilation_w;
  int64_t top, bottom, left, right;  // padding; reflected padding is smaller than the image
  Padding mode;
  int tile;  // edge of a transformed tile: 16 or 32 and no smaller than the kernel, or 6 for 3 x 3 kernels (Winograd)
  bool channels_last;

  int64_t out_height() const { return height + top + bottom - dilation_h * (kernel_h - 1); }
  int64_t out_width() const { return width + left + right - dilation_w * (kernel_w - 1); }
};

// The weights as the products of spectra use them. Transposed: for the gradient of the input.
struct ConvSpectrum {
  int64_t in_channels, out_channels, kernel_h, kernel_w;  // of the weights
  int tile;
  bool transposed;
  const float* weight;  // [out_channels, in_channels, kernel_h, kernel_w]
  float* spectrum;      // conv_spectrum_floats values; channels are swapped if transposed
};

struct ConvForward : ConvShape {
  const float* x;
  const float* spectrum;
  const float* bias;      // [out_channels]
  const float* residual;  // like out: added before the activation
  bool relu;
  float* out;
};

struct ConvBackward : ConvShape {
  const float* x;         // needed for grad_weight
  const float* grad;      // like out
  const float* out;       // the result, needed if it went through a ReLU
  const float* spectrum;  // transposed, needed for grad_x
  float* grad_x;
  float* grad_weight;    // like the weights
  float* grad_bias;      // [out_channels]
  float* grad_residual;  // like out: grad where the ReLU let it pass
};

}  // namespace deal
