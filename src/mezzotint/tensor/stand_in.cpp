#include "mezzotint/tensor/stand_in.h"

#include "mezzotint/tensor/dispatch.h"

namespace mezzotint::tensor {

StandInImpl::StandInImpl(at::Tensor behind, std::shared_ptr<Interceptor> interceptor, bool transposed)
    : TensorImpl(behind.key_set() | c10::DispatchKeySet(c10::DispatchKey::DeferredInit), behind.dtype(),
                 behind.device()),
      behind_(std::move(behind)),
      interceptor_(std::move(interceptor)),
      transposed_(transposed) {
  install_dispatch();
  refresh();
}

void StandInImpl::refresh() {
  data_type_ = behind_.dtype();
  device_opt_ = behind_.device();
  key_set_ = behind_.key_set() | c10::DispatchKeySet(c10::DispatchKey::DeferredInit);
  set_sizes_and_strides(behind_.sizes(), behind_.strides());
}

c10::intrusive_ptr<c10::TensorImpl> StandInImpl::shallow_copy_and_detach(const c10::VariableVersion& version,
                                                                         bool allow_metadata_change) const {
  auto copy = c10::make_intrusive<StandInImpl>(behind_, interceptor_, transposed_);
  if (!copy->is_inference()) copy->set_version_counter(version);
  copy->set_allow_tensor_metadata_change(allow_metadata_change);
  return copy;
}

c10::intrusive_ptr<c10::TensorImpl> StandInImpl::shallow_copy_and_detach(c10::VariableVersion&& version,
                                                                         bool allow_metadata_change) const {
  return shallow_copy_and_detach(static_cast<const c10::VariableVersion&>(version), allow_metadata_change);
}

void StandInImpl::shallow_copy_from(const c10::intrusive_ptr<c10::TensorImpl>& other) {
  behind_.set_data(at::Tensor(other));
  refresh();
}

at::Tensor make_stand_in(const at::Tensor& behind, std::shared_ptr<Interceptor> interceptor) {
  return at::Tensor(c10::make_intrusive<StandInImpl>(behind, std::move(interceptor), false));
}

const StandInImpl* as_stand_in(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::DeferredInit)) return nullptr;
  return dynamic_cast<const StandInImpl*>(tensor.unsafeGetTensorImpl());
}

}  // namespace mezzotint::tensor
