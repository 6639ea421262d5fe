#include "mezzotint/models/wan/load.h"

#include <fmt/format.h>

#include <utility>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/detect.h"

namespace mezzotint::models::wan {

std::unique_ptr<Transformer> load(const std::filesystem::path& path, nn::LoadOptions options, int64_t heads,
                                  nn::LoadReport* report) {
  const auto file = checkpoint::Model::open(path);
  const auto& tensors = file.source().tensors();
  if (!options.prefix) options.prefix = convert::detect(tensors).prefix;
  auto model = std::make_unique<Transformer>(config_from(tensors, *options.prefix, heads));
  nn::LoadReport found = nn::load(*model, file, options);
  if (!found.missing.empty())
    throw Error({.name = "tensor-missing",
                 .problem = fmt::format("the file lacks {} tensors of the model", found.missing.size()),
                 .file = path.string(),
                 .tensor = found.missing.front()});
  if (report != nullptr) *report = std::move(found);
  return model;
}

}  // namespace mezzotint::models::wan
