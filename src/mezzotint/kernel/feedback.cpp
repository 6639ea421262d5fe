#include "mezzotint/kernel/feedback.h"

#include <cassert>

namespace mezzotint::kernel {

void round_with_feedback(const FeedbackBlock& block) {
  assert(block.rows % kFeedbackRows == 0 && block.columns <= kFeedbackColumns);
  with_isa([&]<Isa I> { round_with_feedback<I>(block); });
}

}  // namespace mezzotint::kernel
