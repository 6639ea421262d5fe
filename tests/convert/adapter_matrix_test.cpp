// Merges in docs/adapters.md: every algorithm into every format, by what the program has. The oracle is make_golden.py
// for floats (NumPy in float64, LyCORIS) and the closed form that golden_test.cpp holds beside it for stored bases.
#include <numeric>

#include "adapter/adapter_variants.h"
#include "adapter/golden_cases.h"
#include "adapter/matrix_axes.h"
#include "convert/merging.h"
#include "support/matrix.h"
#include "support/reference_file.h"

namespace mezzotint::convert {
namespace {

using test::AdapterVariant;
using test::RawFile;

// Of an error over that of plainly storing the exact sum. Scales that keep to the stored ones where they can are not
// quite those of a fresh choice; feedback moves errors out of the adapter's input space, at a price.
constexpr double kErrorLimit = 1.2;
// Of what the gain of a change of 0.4 of the weight's length is off by; at random it would be some 0.1 / sqrt(32768).
constexpr double kGainLimit = 0.05;

double norm_of(const Matrix& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

Matrix minus(const Matrix& a, const Matrix& b) {
  Matrix out = a;
  for (size_t i = 0; i < out.size(); ++i) out[i] -= b.at(i);
  return out;
}

class MergeMatrix : public Merging, public testing::WithParamInterface<std::string> {
 protected:
  const formats::Selection selection_ = formats::select_format(GetParam());
  test::Matrix matrix_{"merge", GetParam()};

  ConvertOptions merging_all(std::vector<MergeLora> files, MergeRounding rounding = MergeRounding::nearest) const {
    ConvertOptions options = merging(std::move(files));
    options.merge_dampen = false;
    options.merge_rounding = rounding;
    return options;
  }

  void merge_floats(DType dtype);
  void merge_stored(const std::string& kind, const formats::Layout& layout);
  void refuse_read_only();
  std::optional<formats::Layout> layout_for(const std::string& kind);

  /// Values and parameters of a stored layer.
  static formats::Parameters parameters(const RawFile& file, const std::string& layer, const formats::Layout& layout) {
    formats::Parameters out;
    for (const formats::StoredTensor& tensor : layout.tensors) {
      const std::string& bytes = file.at(layer + "." + tensor.suffix).bytes;
      const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
      out.tensors.emplace_back(std::vector<std::byte>(data, data + bytes.size()));
    }
    return out;
  }
  static Matrix decoded(const RawFile& file, const std::string& layer, const formats::Layout& layout) {
    const std::vector<float> values = formats::dequantize(layout, parameters(file, layer, layout), 1);
    return {values.begin(), values.end()};
  }
};

std::vector<float> narrowed(const Matrix& values) {
  return {values.begin(), values.end()};
}

/// Largest error of an element, in bounds that the format derives for its codec; both before the inverse transform.
double by_error_bound(const formats::Layout& layout, const formats::Parameters& parameters, const Matrix& got,
                      const Matrix& wanted) {
  std::vector<float> values = narrowed(wanted), stored = narrowed(got), bound(wanted.size());
  double largest = 0;
  for (const double x : wanted) largest = std::max(largest, std::abs(x));
  if (layout.transformed) {
    layout.format->transform(layout, values.data(), layout.total_rows(), false);
    layout.format->transform(layout, stored.data(), layout.total_rows(), false);
  }
  double worst = 0;
  for (const auto& range : formats::row_tiles(layout, 1)) {
    const size_t first = static_cast<size_t>(range.row0 * layout.cols);
    const formats::Tile tile{values.data() + first, DType::f32, range.row0, range.rows, 0, layout.cols, layout.cols};
    layout.format->error_bound(layout, parameters, tile, bound.data() + first);
  }
  for (size_t i = 0; i < values.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(stored[i]) - static_cast<double>(values[i])) /
                                (static_cast<double>(bound[i]) + 4e-6 * largest));
  return worst;
}

// Every case of make_golden.py in one file, in half steps of the dtype.
void MergeMatrix::merge_floats(DType dtype) {
  const std::vector<test::GoldenMerge> cases = test::golden_merges();
  const auto layer = [](size_t i) { return "blocks." + std::to_string(i) + ".q"; };
  RawFile base;
  std::map<std::pair<double, bool>, RawFile> files;  // strengths and metadata are those of files
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto source = test::as_source(cases[i].weight.values, dtype);
    base.tensors.emplace_back(layer(i) + ".weight",
                              test::RawTensor{std::string(name(dtype)), cases[i].weight.shape, text_of(source.bytes)});
    RawFile& file = files[{cases[i].strength, cases[i].per_row()}];
    file.metadata = cases[i].metadata;
    for (const auto& [key, tensor] : cases[i].tensors)
      file.tensors.emplace_back(layer(i) + key.substr(1), test::f32_tensor(tensor.shape, tensor.values));
  }
  std::vector<MergeLora> all, weaker;
  for (const auto& [place, file] : files) {
    all.push_back(lora_file(file, place.first, "adapter" + std::to_string(all.size())));
    weaker.push_back({all.back().file, place.first * 0.9});
  }
  const RawFile after = convert(base, merging_all(all)), other = convert(base, merging_all(weaker));
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i].name);
    const auto error = [&](const RawFile& file) {
      const test::RawTensor& tensor = file.at(layer(i) + ".weight");
      const Matrix got = plain_values(tensor);
      double largest = 0, worst = 0;
      for (const float x : cases[i].expected) largest = std::max(largest, std::abs(static_cast<double>(x)));
      for (size_t n = 0; n < got.size(); ++n) {
        const double wanted = cases[i].expected[n];
        worst = std::max(worst, std::abs(got[n] - wanted) / plain_step(tensor.dtype, wanted, largest));
      }
      return worst;
    };
    matrix_.measure(cases[i].kind, cases[i].algorithm, "nearest", error(after), 1);
    EXPECT_GT(error(base), 1);
    if (cases[i].algorithm != "set") {  // which has no strengths
      EXPECT_GT(error(other), 1);
    }
  }
}

void MergeMatrix::merge_stored(const std::string& kind, const formats::Layout& layout) {
  auto rng = test::test_rng();
  const Shape shape = test::matrix_shape(kind);
  const std::vector<float> weight = normal_floats(rng, element_count(shape).value(), 0.05);
  const auto stored = [&](size_t count) {
    RawFile file;
    for (size_t i = 0; i < count; ++i)
      file.tensors.emplace_back("blocks." + std::to_string(i) + ".q.weight", test::f32_tensor(shape, weight));
    return convert(file, {.to = GetParam(), .preset = "none", .include = {"blocks"}});
  };
  const Matrix before = decoded(stored(1), "blocks.0.q", layout);
  const double of_base = norm_of(minus(before, {weight.begin(), weight.end()}));
  std::vector<AdapterVariant> variants;
  RawFile adapters;
  for (const std::string& algorithm : test::matrix_algorithms()) {
    const std::string target = "blocks." + std::to_string(variants.size());
    test::AdapterVariants make(target + ".q", shape, narrowed(before), variants.size());
    for (AdapterVariant& variant : make.of(algorithm)) {
      const std::string place = "blocks." + std::to_string(variants.size());
      for (auto& [key, tensor] : variant.tensors) {
        key = place + key.substr(target.size());
        adapters.tensors.emplace_back(key, test::f32_tensor(tensor.shape, tensor.values));
      }
      variants.push_back(std::move(variant));
    }
  }
  const RawFile base = stored(variants.size());
  const MergeLora file = lora_file(adapters);
  const RawFile nearest = convert(base, merging_all({file}));
  EXPECT_EQ(outcome_.rows_resumed, 0u);
  const RawFile fed_back = convert(base, merging_all({file}, MergeRounding::feedback));
  const RawFile weaker = convert(base, merging_all({{file.file, 0.6}}));
  const int effort = choose_method("", ConvertOptions().effort, layout, nullptr).effort;
  for (size_t i = 0; i < variants.size(); ++i) {
    const std::string layer = "blocks." + std::to_string(i) + ".q", &algorithm = variants[i].algorithm;
    SCOPED_TRACE(algorithm + " " + variants[i].name);
    const Matrix wanted = test::ClosedForm(variants[i].tensors, layer, shape).merge(before, 1);
    const Matrix change = minus(wanted, before);
    const std::vector<float> sum = narrowed(wanted);
    const formats::Tile whole{sum.data(), DType::f32, 0, layout.total_rows(), 0, layout.cols, layout.cols};
    const formats::Quantized plain = formats::quantize(layout, whole, {.effort = effort}, Rounding(), 1);
    const std::vector<float> plainly = formats::dequantize(layout, plain.parameters, 1);
    // Sums that happen to be representable, as IA3's with scales of rows, say nothing about rounding.
    const double own = std::max(norm_of(minus({plainly.begin(), plainly.end()}, wanted)), of_base);
    const auto error = [&](const RawFile& of) { return norm_of(minus(decoded(of, layer, layout), wanted)) / own; };
    const auto gain = [&](const RawFile& of) {
      const Matrix moved = minus(decoded(of, layer, layout), before);
      return std::inner_product(moved.begin(), moved.end(), change.begin(), 0.0) / std::pow(norm_of(change), 2);
    };
    matrix_.measure(kind, algorithm, "nearest", error(nearest), kErrorLimit);
    matrix_.measure(kind, algorithm, "feedback", error(fed_back), kErrorLimit);
    matrix_.measure(kind, algorithm, "gain lost", std::abs(gain(nearest) - 1), kGainLimit);
    matrix_.measure(kind, algorithm, "gain lost with feedback", std::abs(gain(fed_back) - 1), kGainLimit);
    const formats::Parameters scales = parameters(nearest, layer, layout);
    EXPECT_LE(by_error_bound(layout, scales, decoded(nearest, layer, layout), wanted), 1) << "element by element";
    // Controls: the base as it was, and another strength.
    EXPECT_GT(error(base), kErrorLimit);
    EXPECT_GT(std::abs(gain(base) - 1), kGainLimit);
    EXPECT_GT(by_error_bound(layout, scales, before, wanted), 1);
    if (algorithm == "set") continue;
    EXPECT_GT(error(weaker), kErrorLimit);
    EXPECT_GT(std::abs(gain(weaker) - 1), kGainLimit);
  }
}

/// What conversions make of a layer of this kind, and, where they leave it alone, cells that say why.
std::optional<formats::Layout> MergeMatrix::layout_for(const std::string& kind) {
  const Shape shape = test::matrix_shape(kind);
  const RawFile file{
      {{"blocks.0.q.weight", test::f32_tensor(shape, std::vector<float>(element_count(shape).value(), 1.0f))}}, {}};
  const Plan made = plan(file, {.to = GetParam(), .preset = "none", .include = {"blocks"}});
  if (made.rows.at(0).action == Action::encode) return made.rows[0].layout;
  const auto described = selection_.format->describe({shape, formats::LayerKind::convolution}, selection_.options);
  for (const std::string& algorithm : test::matrix_algorithms()) matrix_.leave_out(kind, algorithm, described.refusal);
  return std::nullopt;
}

void MergeMatrix::refuse_read_only() {
  const auto references = test::reference_cases(selection_.format->name);
  ASSERT_FALSE(references.empty());
  const RawFile base = test::reference_file(references[0], "blocks.0.q");
  const Shape shape = references[0]["source"]["shape"];
  for (const std::string& algorithm : test::matrix_algorithms()) {
    const std::vector<float> ones(element_count(shape).value(), 1.0f);
    const auto variants = test::AdapterVariants("blocks.0.q", shape, ones, 1).of(algorithm);
    ASSERT_FALSE(variants.empty());
    RawFile adapter;
    for (const auto& [key, tensor] : variants[0].tensors)
      adapter.tensors.emplace_back(key, test::f32_tensor(tensor.shape, tensor.values));
    try {
      plan(base, merging({lora_file(adapter)}));
      ADD_FAILURE() << "planned";
    } catch (const Error& error) {
      EXPECT_EQ(error.name(), "merge-unwritable");
      matrix_.leave_out("linear", algorithm, error.info().problem);
    }
    for (const std::string kind : {"conv1d", "conv2d", "conv3d"}) {
      const formats::LayerFacts facts{test::matrix_shape(kind), formats::LayerKind::convolution};
      matrix_.leave_out(kind, algorithm, selection_.format->describe(facts, selection_.options).refusal);
    }
  }
}

TEST_P(MergeMatrix, EveryCell) {
  const formats::Format& format = *selection_.format;
  if (!format.quantized) {
    merge_floats(format.describe({{1, 1}}, selection_.options).layout->tensors[0].dtype);
  } else if (!format.writable) {
    refuse_read_only();
  } else {
    for (const std::string& kind : test::matrix_kinds())
      if (const auto layout = layout_for(kind)) merge_stored(kind, *layout);
  }
  matrix_.finish(test::matrix_kinds(), test::matrix_algorithms());
}

INSTANTIATE_TEST_SUITE_P(All, MergeMatrix, testing::ValuesIn(test::matrix_formats()),
                         [](const auto& format) { return format.param; });

TEST(MergeMatrixRows, AreThoseOfTheProgram) {
  if (std::getenv("MEZZOTINT_MATRIX") != nullptr) GTEST_SKIP() << "the document is about to be written";
  const auto formats = test::matrix_formats();
  EXPECT_EQ(test::documented_formats("merge"), std::set<std::string>(formats.begin(), formats.end()));
}

}  // namespace
}  // namespace mezzotint::convert
