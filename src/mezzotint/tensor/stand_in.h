#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/TensorImpl.h>

#include <memory>

/// A tensor in the place of another one, a weight say, whose operations somebody wants to see first. It has the
/// dispatch key of quantized tensors (quantized_tensor.h), above autograd and autocast, so that operations arrive
/// whole. What nobody takes is done with the tensor behind it: values, dtype, device, data that is set.
namespace mezzotint::tensor {

class Interceptor {
 public:
  virtual ~Interceptor() = default;
  /// Does a call in which `argument` is a stand-in of this interceptor: takes the arguments off the stack and puts the
  /// results on it. Or leaves the stack alone and returns false.
  virtual bool intercept(const c10::OperatorHandle& op, torch::jit::Stack& stack, const at::Tensor& argument) = 0;
};

class StandInImpl final : public c10::TensorImpl {
 public:
  StandInImpl(at::Tensor behind, std::shared_ptr<Interceptor> interceptor, bool transposed);

  /// Transposed where this is.
  const at::Tensor& behind() const { return behind_; }
  const std::shared_ptr<Interceptor>& interceptor() const { return interceptor_; }
  /// Made of a matrix by t(), mT or transpose().
  bool transposed() const { return transposed_; }
  /// Takes over shape, dtype and device after the tensor behind was written to.
  void refresh();

  c10::intrusive_ptr<c10::TensorImpl> shallow_copy_and_detach(const c10::VariableVersion& version,
                                                              bool allow_metadata_change) const override;
  c10::intrusive_ptr<c10::TensorImpl> shallow_copy_and_detach(c10::VariableVersion&& version,
                                                              bool allow_metadata_change) const override;
  /// Data that is set (Module::to) is that of the tensor behind.
  void shallow_copy_from(const c10::intrusive_ptr<c10::TensorImpl>& other) override;

 private:
  const char* tensorimpl_type_name() const override { return "mezzotint::StandInImpl"; }

  at::Tensor behind_;
  std::shared_ptr<Interceptor> interceptor_;
  bool transposed_;
};

at::Tensor make_stand_in(const at::Tensor& behind, std::shared_ptr<Interceptor> interceptor);

/// Null where the tensor is none.
const StandInImpl* as_stand_in(const at::Tensor& tensor);

}  // namespace mezzotint::tensor
