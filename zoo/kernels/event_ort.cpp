// The event-driven convolution, and its neurons alone, as operators of ONNX Runtime: domain snnzoo, version 1.
// EventConv:
//
//     inputs      spikes    uint8   [T*B, H, W, C]     counts of spikes, time-major, channels last; at most `most`
//                 weight    int16   [Co, C, kh, kw]    whole numbers from -32767 to 32767; a constant
//                 scale     float32 [Co]               a constant
//                 bias      float32 [Co]               a constant
//                 shortcut  float32 [T*B, Ho, Wo, Co]  optional: currents to add
//                 counts    uint8   [T*B, Ho, Wo, Co]  optional: counts to add to the currents, at most 127
//                 state     float32 [B, Ho, Wo, Co]    optional: membrane potentials before the first step, or zeros
//     outputs     spikes    uint8   [T*B, Ho, Wo, Co]  each of the three is optional, an empty name leaves it out
//                 currents  float32 [T*B, Ho, Wo, Co]
//                 state     float32 [B, Ho, Wo, Co]    membrane potentials after the last step
//     attributes  timesteps   int       T, 1 by default: a stream hands the state on, a flat graph has none
//                 strides     2 ints    [1, 1] by default
//                 pads        4 ints    top, left, bottom, right, zeros by default
//                 most        int       largest count in `spikes`, 1 to 15, 1 by default
//                 decay, gain, threshold  floats, 1 by default
//                 soft_reset  int       0 by default
//
// For each time step, in float32, every operation rounded by itself (no fused multiply-add):
//
//     currents = float(sums) * scale + bias, and then + shortcut, + counts     sums: the convolution, exact
//     u        = v * decay + currents * gain                                   v = state, or zeros
//     spikes   = u >= threshold
//     v        = u where there is no spike; where there is one, 0 or u - threshold
//
// A float32 convolution of the same whole numbers is exact, too, while sums of |weight| * count stay below 2^24; so a
// function of standard operators with the name EventConv and these operations gives the same bits. Beware of optimizers
// that fold `scale` into the convolution's weights: a Cast of the sums to int32 and back keeps them apart. A fully
// connected layer is a 1 x 1 convolution over maps of 1 x 1.
//
// EventNeurons is the same without a convolution:
//
//     inputs      currents  float32 [T*B, ...]         or [B, ...] with `repeat`: the same at every step
//                 state     float32 [B, ...]           optional
//     outputs     spikes    uint8   [T*B, ...]         each of the two is optional
//                 state     float32 [B, ...]
//     attributes  timesteps, decay, gain, threshold, soft_reset as above; repeat  int  0 by default
//
// ONNX Runtime's C interface is append-only: the few slots that are used are declared here, as they stand from
// version 1.17 on.
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
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kKernelInfoGetAttributeFloat = 85,
  kKernelInfoGetAttributeInt64 = 86,
  kKernelContextGetInputCount = 88,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseStatus = 93,
  kReleaseTensorTypeAndShapeInfo = 99,
  kKernelInfoGetAttributeArrayInt64 = 163,
  kKernelInfoGetConstantInputTensor = 249,
  kKernelContextParallelFor = 274
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

// Types, as ONNX numbers them, and which inputs and outputs EventConv has.
enum { kFloat = 1, kUint8 = 2, kInt16 = 5 };
enum { kSpikes, kWeight, kScale, kBias, kShortcut, kCounts, kState, kInputs };
enum { kOutSpikes, kOutCurrents, kOutState, kOutputs };
constexpr double kLargestMap = 1 << 28;  // numbers of an output, of one image at one step

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

// Attributes of a node.
struct Attributes {
  const OrtInfo* info;
  int64_t number(const char* name, int64_t otherwise) const {
    int64_t value;
    return ok(ort(kKernelInfoGetAttributeInt64, info, name, &value)) ? value : otherwise;
  }
  // Leaves values alone where there is no such attribute; false for one of another size.
  bool numbers(const char* name, int64_t* values, size_t size) const {
    size_t given = 0;
    if (!ok(ort(kKernelInfoGetAttributeArrayInt64, info, name, (int64_t*)nullptr, &given))) return true;
    return given == size && ok(ort(kKernelInfoGetAttributeArrayInt64, info, name, values, &given));
  }
  float real(const char* name) const {
    float value;
    return ok(ort(kKernelInfoGetAttributeFloat, info, name, &value)) ? value : (float)number(name, 1);
  }
  EventShape neurons() const {
    EventShape s{};
    s.timesteps = (int32_t)std::clamp<int64_t>(number("timesteps", 1), 0, INT32_MAX);
    s.soft_reset = number("soft_reset", 0) != 0;
    s.decay = real("decay"), s.gain = real("gain"), s.threshold = real("threshold");
    return s;
  }
};

// The inputs of a run, those that are not there without data.
std::vector<Tensor> inputs(const OrtContext* context, size_t count) {
  std::vector<Tensor> found;
  size_t given = 0;
  if (!ok(ort(kKernelContextGetInputCount, context, &given))) given = 0;
  for (size_t i = 0; i < count; i++) {
    const OrtValue* value = nullptr;
    if (i < given && !ok(ort(kKernelContextGetInput, context, i, &value))) value = nullptr;
    found.emplace_back(value);
  }
  return found;
}

// Makes outputs in turn, null where nobody reads one; there may be no memory for one.
struct Outputs {
  OrtContext* context;
  OrtStatus* failure = nullptr;
  void* next(size_t index, const std::vector<int64_t>& dims) {
    OrtValue* value = nullptr;
    if (!failure) failure = ort(kKernelContextGetOutput, context, index, dims.data(), dims.size(), &value);
    return Tensor(failure ? nullptr : value).data;
  }
};

// The threads of ONNX Runtime.
EventCall on_its_threads(OrtContext* context) {
  EventCall call{};
  call.tasks = 16;
  call.pool = context;
  call.parallel_for = [](void* pool, EventTask* task, void* data, size_t count) {
    if (!ok(ort(kKernelContextParallelFor, (const OrtContext*)pool, task, count, (size_t)0, data)))
      for (size_t i = 0; i < count; i++) task(data, i);
  };
  return call;
}

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

  const Attributes attributes{info};
  int64_t strides[2] = {1, 1}, pads[4] = {};
  if (!attributes.numbers("strides", strides, 2) || !attributes.numbers("pads", pads, 4))
    return fail("EventConv: strides must be two numbers, pads four");
  EventShape s = attributes.neurons();
  for (int64_t n :
       {weight[0], weight[1], weight[2], weight[3], strides[0], strides[1], pads[0], pads[1], pads[2], pads[3]})
    if (n < 0 || n > INT32_MAX) return fail("EventConv: a size that is out of range");
  s.out_channels = weight[0], s.channels = weight[1], s.kernel_h = weight[2], s.kernel_w = weight[3];
  s.stride_h = strides[0], s.stride_w = strides[1];
  s.pad_top = pads[0], s.pad_left = pads[1], s.pad_bottom = pads[2], s.pad_right = pads[3];
  for (int64_t most = attributes.number("most", 1); most > 0 && s.bits < 5; most >>= 1) s.bits++;
  const auto floats = [&](int i) { return (const float*)constants[i].data; };
  *out = event_layer(&s, (const int16_t*)constants[0].data, nullptr, floats(1), floats(2));
  return *out ? nullptr : fail("EventConv: a shape that this library does not take");
}

OrtStatus* compute(void* layer, OrtContext* context) {
  const EventShape& s = ((const Layer*)layer)->shape;
  const std::vector<Tensor> in = inputs(context, kInputs);
  const std::vector<int64_t>& dims = in[kSpikes].dims;
  if (dims.size() != 4 || dims[3] != s.channels || dims[0] % s.timesteps)
    return fail("EventConv: spikes must be [T*B, H, W, C], with the channels of the weight");
  EventCall call = on_its_threads(context);
  call.batch = dims[0] / s.timesteps, call.height = dims[1], call.width = dims[2];
  const int64_t high = dims[1] + s.pad_top + s.pad_bottom - s.kernel_h,
                wide = dims[2] + s.pad_left + s.pad_right - s.kernel_w;
  if (high < 0 || wide < 0) return fail("EventConv: maps that are smaller than the kernel");
  const std::vector<int64_t> steps{dims[0], high / s.stride_h + 1, wide / s.stride_w + 1, s.out_channels};
  const std::vector<int64_t> once{call.batch, steps[1], steps[2], steps[3]};
  for (int i : {kShortcut, kCounts, kState})
    if (in[i].data && in[i].dims != (i == kState ? once : steps))
      return fail("EventConv: shortcut, counts or state of another shape");
  call.spikes = (const uint8_t*)in[kSpikes].data;
  call.shortcut = (const float*)in[kShortcut].data;
  call.shortcut_counts = (const uint8_t*)in[kCounts].data;
  call.state = (const float*)in[kState].data;
  if ((double)steps[1] * steps[2] * steps[3] > kLargestMap) return fail("EventConv: maps that are too large");
  Outputs out{context};
  call.out_spikes = (uint8_t*)out.next(kOutSpikes, steps);
  call.out_currents = (float*)out.next(kOutCurrents, steps);
  call.out_state = (float*)out.next(kOutState, once);
  if (out.failure) return out.failure;
  return event_run(layer, &call) ? fail("EventConv: maps that are too large") : nullptr;
}

struct Neurons {
  EventShape shape;
  bool repeat;
};

OrtStatus* create_neurons(const void*, const OrtApi*, const OrtInfo* info, void** out) {
  const Attributes attributes{info};
  EventShape shape = attributes.neurons();
  if (shape.timesteps < 1 || shape.timesteps > kMostSteps) return fail("EventNeurons: timesteps out of range");
  *out = new Neurons{shape, attributes.number("repeat", 0) != 0};
  return nullptr;
}

OrtStatus* compute_neurons(void* kernel, OrtContext* context) {
  const Neurons& neurons = *(const Neurons*)kernel;
  const int64_t steps = neurons.shape.timesteps;
  const std::vector<Tensor> in = inputs(context, 2);
  std::vector<int64_t> dims = in[0].dims, once = dims;
  if (dims.empty() || (!neurons.repeat && dims[0] % steps)) return fail("EventNeurons: currents must be [T*B, ...]");
  if (neurons.repeat)
    dims[0] *= steps;
  else
    once[0] /= steps;
  if (in[1].data && in[1].dims != once) return fail("EventNeurons: a state of another shape");
  int64_t size = 1;
  for (int64_t n : once) size *= n;
  const EventCall call = on_its_threads(context);
  Outputs out{context};
  uint8_t* spikes = (uint8_t*)out.next(0, dims);
  float* last = (float*)out.next(1, once);
  if (out.failure) return out.failure;
  event_neurons(&neurons.shape, (const float*)in[0].data, neurons.repeat, (const float*)in[1].data, spikes, last, size,
                &call);
  return nullptr;
}

// OrtCustomOp of version 17, and what its functions tell.
struct Operator {
  uint32_t version = kVersion;
  void* create_kernel = nullptr;
  const char* (*name)(const Operator*) = [](const Operator* o) { return o->its_name; };
  const char* (*provider)(const Operator*) = [](const Operator*) -> const char* { return nullptr; };
  int (*input_type)(const Operator*, size_t) = [](const Operator* o, size_t i) { return o->its_inputs[i]; };
  size_t (*inputs)(const Operator*) = [](const Operator* o) { return o->its_inputs.size(); };
  int (*output_type)(const Operator*, size_t) = [](const Operator* o, size_t i) { return o->its_outputs[i]; };
  size_t (*outputs)(const Operator*) = [](const Operator* o) { return o->its_outputs.size(); };
  void* compute_kernel = nullptr;
  void (*destroy)(void*);
  int (*input_optional)(const Operator*, size_t) = [](const Operator* o, size_t i) {
    return (int)(i >= o->its_required);
  };
  int (*output_optional)(const Operator*, size_t) = [](const Operator*, size_t) { return 1; };
  int (*input_memory)(const Operator*, size_t) = [](const Operator*, size_t) { return 0; };
  int (*variadic[4])(const Operator*) = {zero, zero, zero, zero};
  OrtStatus* (*create_v2)(const void*, const OrtApi*, const OrtInfo*, void**);
  OrtStatus* (*compute_v2)(void*, OrtContext*);
  void* infer_shape = nullptr;
  int (*first_version)(const Operator*) = [](const Operator*) { return 1; };
  int (*last_version)(const Operator*) = [](const Operator*) { return INT32_MAX; };
  static int zero(const Operator*) { return 0; }

  const char* its_name;
  std::vector<int> its_inputs, its_outputs;
  size_t its_required;  // inputs
};

Operator operator_of(const char* name, std::vector<int> inputs, size_t required, std::vector<int> outputs,
                     decltype(Operator::create_v2) create, decltype(Operator::compute_v2) compute,
                     void (*destroy)(void*)) {
  Operator o;
  o.its_name = name, o.its_inputs = std::move(inputs), o.its_outputs = std::move(outputs), o.its_required = required;
  o.create_v2 = create, o.compute_v2 = compute, o.destroy = destroy;
  return o;
}
const Operator kConv = operator_of("EventConv", {kUint8, kInt16, kFloat, kFloat, kFloat, kUint8, kFloat}, kShortcut,
                                   {kUint8, kFloat, kFloat}, create, compute, event_delete);
const Operator kNeurons = operator_of("EventNeurons", {kFloat, kFloat}, 1, {kUint8, kFloat}, create_neurons,
                                      compute_neurons, [](void* kernel) { delete (Neurons*)kernel; });

}  // namespace

// What ONNX Runtime calls to register the library's operators.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtOptions* options,
                                                                               const OrtApiBase* base) {
  api = base->get_api(kVersion);
  if (!api) {
    api = base->get_api(1);
    return fail("the operators of snnzoo need ONNX Runtime 1.17 or newer");
  }
  OrtDomain* domain = nullptr;
  OrtStatus* status = ort(kCreateCustomOpDomain, "snnzoo", &domain);
  for (const Operator* o : {&kConv, &kNeurons})
    if (!status) status = ort(kCustomOpDomainAdd, domain, o);
  if (!status) status = ort(kAddCustomOpDomain, options, domain);
  return status;
}
