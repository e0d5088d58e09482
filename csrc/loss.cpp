// Host side of the photometric loss: checks, allocation, dispatch.
#include "executor.h"
#include "ops.h"

namespace splatrender {

std::tuple<Tensor, Tensor, Tensor, Tensor> photometric_loss_op(Tensor radiance, Tensor photo, OptionalTensor mask,
                                                               double ssim_weight, bool with_grad) {
  Checker check("photometric_loss");
  const ScalarType type = float_type(radiance, "photometric_loss", "radiance");
  const bool bytes = photo.scalar_type() == ScalarType::Byte;
  const Tensor x = check(radiance, "radiance", type, {"H", "W", 3});
  const Tensor y = check(photo, "photo", bytes ? ScalarType::Byte : type, {"H", "W", 3});
  OptionalTensor kept;
  if (mask) kept = check(*mask, "mask", ScalarType::Byte, {"H", "W"});
  const int64_t H = check.size("H"), W = check.size("W"), strips = (W + kLossStrip - 1) / kLossStrip;
  check_image(check, W, H);
  check.require(ssim_weight >= 0 && ssim_weight <= 1, "ssim_weight", "a number from 0 to 1",
                std::to_string(ssim_weight));
  Tensor loss = make(x, {}, type), l1 = make(x, {}, type), ssim = make(x, {}, type);
  Tensor grad = with_grad ? make(x, {H, W, 3}, type) : make(x, {0}, type);
  Tensor partial = make(x, {strips, H, 2}, ScalarType::Double);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    LossArgs<T> a{};
    a.width = int(W), a.height = int(H), a.strips = int(strips), a.ssim_weight = ssim_weight;
    a.radiance = cdata<T>(x);
    if (bytes)
      a.photo_bytes = cdata<uint8_t>(y);
    else
      a.photo = cdata<T>(y);
    a.mask = kept ? cdata<uint8_t>(*kept) : nullptr;
    a.loss = data<T>(loss), a.l1 = data<T>(l1), a.ssim = data<T>(ssim);
    a.grad = with_grad ? data<T>(grad) : nullptr;
    a.partial = data<double>(partial);
    run(
        "photometric_loss", x, [&](auto& context) { return cuda::loss(a, context); },
        [&](auto& cpu) { cpu.template stages<T>().loss(a); });
  });
  return {loss, l1, ssim, grad};
}

}  // namespace splatrender
