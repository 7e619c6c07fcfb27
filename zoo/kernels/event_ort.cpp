// The event-driven convolution as an operator of ONNX Runtime: domain snnzoo, version 1, name EventConv.
//
//     inputs      spikes    uint8   [T*B, H, W, C]     counts of spikes, time-major, channels last; at most `most`
//                 weight    int16   [Co, C, kh, kw]    whole numbers from -32767 to 32767; a constant
//                 scale     float32 [Co]               a constant
//                 bias      float32 [Co]               a constant
//                 shortcut  float32 [T*B, Ho, Wo, Co]  optional: currents to add
//                 counts    uint8   [T*B, Ho, Wo, Co]  optional: counts to add, to the currents or to the spikes
//                 state     float32 [B, Ho, Wo, Co]    optional: membrane potentials before the first step; zeros without
//     outputs     spikes    uint8   [T*B, Ho, Wo, Co]  each of the three is optional, an empty name leaves it out
//                 currents  float32 [T*B, Ho, Wo, Co]
//                 state     float32 [B, Ho, Wo, Co]    membrane potentials after the last step
//     attributes  timesteps   int       T, 1 by default. A stream has 1 and hands the state on; a flat graph has all and no state.
//                 strides     2 ints    [1, 1] by default
//                 pads        4 ints    top, left, bottom, right, zeros by default
//                 most        int       largest count in `spikes`, 1 to 15, 1 by default
//                 add_counts  int       1: `counts` are added to the spikes (SEW ADD); 0, by default: to the currents
//                 decay, gain, threshold  floats, 1 by default
//                 soft_reset  int       0 by default
//
// For each time step, in float32, every operation rounded by itself (no fused multiply-add):
//
//     currents = float(sums) * scale + bias, and then + shortcut, + counts     sums: the convolution in whole numbers, exact
//     u        = v * decay + currents * gain                                   v = state, or zeros
//     spikes   = u >= threshold, and then + counts with add_counts
//     v        = u where there is no spike; where there is one, 0 or u - threshold
//
// A float32 convolution of the same whole numbers is exact, too, while sums of |weight| * count stay below 2^24; so a function of
// standard operators with the name EventConv and these operations gives the same bits. Beware of optimizers that fold `scale` into
// the convolution's weights: a Cast of the sums to int32 and back keeps them apart. A fully connected layer is a 1 x 1 convolution over
// maps of 1 x 1.
//
// ONNX Runtime's C interface is append-only: the few slots that are used are declared here, as they stand from version 1.17 on.
#include "event.cpp"

namespace {

struct OrtStatus;
struct OrtValue;
struct OrtShape;
struct OrtInfo;     // of a node, when its kernel is made
struct OrtContext;  // of a run
struct OrtDomain;
struct OrtOptions;
struct OrtApi {
  void* slots[275];
};
struct OrtApiBase {
  const OrtApi* (*get_api)(uint32_t version);
  const char* (*version)();
};
constexpr uint32_t kVersion = 17;
const OrtApi* api;

enum Slot {
  kCreateStatus = 0, kCreateCustomOpDomain = 26, kCustomOpDomainAdd = 27, kAddCustomOpDomain = 28, kGetTensorMutableData = 51,
  kGetDimensionsCount = 61, kGetDimensions = 62, kGetTensorTypeAndShape = 65, kKernelInfoGetAttributeFloat = 85,
  kKernelInfoGetAttributeInt64 = 86, kKernelContextGetInputCount = 88, kKernelContextGetInput = 90, kKernelContextGetOutput = 91,
  kReleaseStatus = 93, kReleaseTensorTypeAndShapeInfo = 99, kKernelInfoGetAttributeArrayInt64 = 163,
  kKernelInfoGetConstantInputTensor = 249, kKernelContextParallelFor = 274
};

// Calls the function in a slot; the arguments must have the types of its parameters.
template <class Result = OrtStatus*, class... Args>
Result ort(Slot slot, Args... args) {
  return ((Result(*)(Args...))api->slots[slot])(args...);
}

OrtStatus* fail(const char* what) { return ort(kCreateStatus, (int)1, what); }
bool ok(OrtStatus* status) {
  if (status) ort<void>(kReleaseStatus, status);
  return !status;
}

// Types, as ONNX numbers them, and which inputs and outputs there are.
enum { kFloat = 1, kUint8 = 2, kInt16 = 5 };
enum { kSpikes, kWeight, kScale, kBias, kShortcut, kCounts, kState, kInputs };
enum { kOutSpikes, kOutCurrents, kOutState, kOutputs };
constexpr int kInputTypes[] = {kUint8, kInt16, kFloat, kFloat, kFloat, kUint8, kFloat};
constexpr int kOutputTypes[] = {kUint8, kFloat, kFloat};

struct Tensor {
  std::vector<int64_t> dims;
  void* data = nullptr;
  explicit Tensor(const OrtValue* value) {
    OrtShape* shape = nullptr;
    size_t rank = 0;
    if (!value || !ok(ort(kGetTensorTypeAndShape, value, &shape))) return;
    if (ok(ort(kGetDimensionsCount, (const OrtShape*)shape, &rank))) dims.resize(rank);
    if (!ok(ort(kGetDimensions, (const OrtShape*)shape, dims.data(), rank))) dims.clear();
    ort<void>(kReleaseTensorTypeAndShapeInfo, shape);
    if (!ok(ort(kGetTensorMutableData, (OrtValue*)value, &data))) data = nullptr;
  }
};

OrtStatus* create(const void*, const OrtApi*, const OrtInfo* info, void** out) {
  std::vector<Tensor> constants;
  for (size_t i : {kWeight, kScale, kBias}) {
    const OrtValue* value = nullptr;
    int constant = 0;
    if (!ok(ort(kKernelInfoGetConstantInputTensor, info, i, &constant, &value)) || !constant)
      return fail("EventConv: weight, scale and bias must be constants");
    constants.emplace_back(value);
  }
  const auto &weight = constants[0].dims, &scale = constants[1].dims, &bias = constants[2].dims;
  if (weight.size() != 4 || scale != std::vector<int64_t>{weight[0]} || bias != scale)
    return fail("EventConv: weight must be [Co, C, kh, kw], scale and bias [Co]");

  const auto number = [&](const char* name, int64_t otherwise) {
    int64_t value;
    return (int32_t)(ok(ort(kKernelInfoGetAttributeInt64, info, name, &value)) ? value : otherwise);
  };
  const auto real = [&](const char* name) {
    float value;
    return ok(ort(kKernelInfoGetAttributeFloat, info, name, &value)) ? value : 1.0f;
  };
  int64_t strides[2] = {1, 1}, pads[4] = {};
  size_t two = 2, four = 4;
  ok(ort(kKernelInfoGetAttributeArrayInt64, info, "strides", &strides[0], &two));
  ok(ort(kKernelInfoGetAttributeArrayInt64, info, "pads", &pads[0], &four));
  const int32_t most = number("most", 1);
  EventShape s{};
  for (int64_t n : {weight[0], weight[1], weight[2], weight[3], strides[0], strides[1], pads[0], pads[1], pads[2], pads[3]})
    if (n < 0 || n > INT32_MAX) return fail("EventConv: a size that is out of range");
  s.out_channels = weight[0], s.channels = weight[1], s.kernel_h = weight[2], s.kernel_w = weight[3];
  s.stride_h = strides[0], s.stride_w = strides[1];
  s.pad_top = pads[0], s.pad_left = pads[1], s.pad_bottom = pads[2], s.pad_right = pads[3];
  s.timesteps = number("timesteps", 1), s.count = number("add_counts", 0), s.soft_reset = number("soft_reset", 0);
  while (s.bits < 5 && most >> s.bits > 0) s.bits++;
  s.decay = real("decay"), s.gain = real("gain"), s.threshold = real("threshold");
  const auto floats = [&](int i) { return (const float*)constants[i].data; };
  *out = event_layer(&s, (const int16_t*)constants[0].data, floats(1), floats(2));
  return *out ? nullptr : fail("EventConv: a shape that this library does not take");
}

OrtStatus* compute(void* layer, OrtContext* context) {
  const EventShape& s = ((const Layer*)layer)->shape;
  std::vector<Tensor> in;
  size_t given = 0;
  if (!ok(ort(kKernelContextGetInputCount, (const OrtContext*)context, &given))) given = 0;
  for (size_t i = 0; i < kInputs; i++) {
    const OrtValue* value = nullptr;
    if (i < given && !ok(ort(kKernelContextGetInput, (const OrtContext*)context, i, &value))) value = nullptr;
    in.emplace_back(value);
  }
  const std::vector<int64_t>& dims = in[kSpikes].dims;
  if (dims.size() != 4 || dims[3] != s.channels || dims[0] % s.timesteps)
    return fail("EventConv: spikes must be [T*B, H, W, C], with the channels of the weight");
  EventCall call{};
  call.batch = dims[0] / s.timesteps, call.height = dims[1], call.width = dims[2];
  const int64_t high = dims[1] + s.pad_top + s.pad_bottom - s.kernel_h, wide = dims[2] + s.pad_left + s.pad_right - s.kernel_w;
  if (high < 0 || wide < 0) return fail("EventConv: maps that are smaller than the kernel");
  const std::vector<int64_t> steps{dims[0], high / s.stride_h + 1, wide / s.stride_w + 1, s.out_channels};
  const std::vector<int64_t> once{call.batch, steps[1], steps[2], steps[3]};
  for (int i : {kShortcut, kCounts, kState})
    if (in[i].data && in[i].dims != (i == kState ? once : steps)) return fail("EventConv: shortcut, counts or state of another shape");
  call.spikes = (const uint8_t*)in[kSpikes].data;
  call.shortcut = (const float*)in[kShortcut].data;
  call.shortcut_counts = (const uint8_t*)in[kCounts].data;
  call.state = (const float*)in[kState].data;
  void* results[kOutputs] = {};
  for (size_t i = 0; i < kOutputs; i++) {
    const auto& shape = i == kOutState ? once : steps;
    OrtValue* value = nullptr;
    if (ok(ort(kKernelContextGetOutput, context, i, shape.data(), shape.size(), &value)) && value) results[i] = Tensor(value).data;
  }
  call.out_spikes = (uint8_t*)results[kOutSpikes];
  call.out_currents = (float*)results[kOutCurrents];
  call.out_state = (float*)results[kOutState];
  call.tasks = 16;
  call.pool = context;
  call.parallel_for = [](void* pool, EventTask* task, void* data, size_t count) {
    if (!ok(ort(kKernelContextParallelFor, (const OrtContext*)pool, task, count, (size_t)0, data)))
      for (size_t i = 0; i < count; i++) task(data, i);
  };
  return event_run(layer, &call) ? fail("EventConv: maps that are too large") : nullptr;
}

// OrtCustomOp of version 17.
struct Operator {
  uint32_t version = kVersion;
  void* create_kernel = nullptr;
  const char* (*name)(const Operator*) = [](const Operator*) { return "EventConv"; };
  const char* (*provider)(const Operator*) = [](const Operator*) -> const char* { return nullptr; };
  int (*input_type)(const Operator*, size_t) = [](const Operator*, size_t i) { return kInputTypes[i]; };
  size_t (*inputs)(const Operator*) = [](const Operator*) { return (size_t)kInputs; };
  int (*output_type)(const Operator*, size_t) = [](const Operator*, size_t i) { return kOutputTypes[i]; };
  size_t (*outputs)(const Operator*) = [](const Operator*) { return (size_t)kOutputs; };
  void* compute_kernel = nullptr;
  void (*destroy)(void*) = event_delete;
  int (*input_optional)(const Operator*, size_t) = [](const Operator*, size_t i) { return (int)(i > kBias); };
  int (*output_optional)(const Operator*, size_t) = [](const Operator*, size_t) { return 1; };
  int (*input_memory)(const Operator*, size_t) = [](const Operator*, size_t) { return 0; };
  int (*variadic[4])(const Operator*) = {zero, zero, zero, zero};
  OrtStatus* (*create_v2)(const void*, const OrtApi*, const OrtInfo*, void**) = create;
  OrtStatus* (*compute_v2)(void*, OrtContext*) = compute;
  void* infer_shape = nullptr;
  int (*first_version)(const Operator*) = [](const Operator*) { return 1; };
  int (*last_version)(const Operator*) = [](const Operator*) { return INT32_MAX; };
  static int zero(const Operator*) { return 0; }
};
const Operator kOperator;

}  // namespace

// What ONNX Runtime calls to register the library's operators.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtOptions* options, const OrtApiBase* base) {
  api = base->get_api(kVersion);
  if (!api) {
    api = base->get_api(1);
    return fail("the operators of snnzoo need ONNX Runtime 1.17 or newer");
  }
  OrtDomain* domain = nullptr;
  OrtStatus* status = ort(kCreateCustomOpDomain, "snnzoo", &domain);
  if (!status) status = ort(kCustomOpDomainAdd, domain, &kOperator);
  if (!status) status = ort(kAddCustomOpDomain, options, domain);
  return status;
}
