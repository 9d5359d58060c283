"""TensorFlow Serving's messages and services; see protobuf.py for the form.

Numbers, names and types are those of tensorflow_serving/{apis,config}. Left out, and so kept unread: options of language
models, and the session service with its log.
"""

from __future__ import annotations

TABLE = """
package tensorflow.serving

ModelSpec: 1 name string, 2 version google.protobuf.Int64Value |version_choice, 4 version_label string |version_choice,
    3 signature_name string

PredictRequest: 1 model_spec ModelSpec, 2 inputs {tensorflow.TensorProto}, 3 output_filter string[]
PredictResponse: 2 model_spec ModelSpec, 1 outputs {tensorflow.TensorProto}

ExampleList: 1 examples tensorflow.Example[]
ExampleListWithContext: 1 examples tensorflow.Example[], 2 context tensorflow.Example
Input: 1 example_list ExampleList |kind, 2 example_list_with_context ExampleListWithContext |kind

Class: 1 label string, 2 score float
Classifications: 1 classes Class[]
ClassificationResult: 1 classifications Classifications[]
ClassificationRequest: 1 model_spec ModelSpec, 2 input Input
ClassificationResponse: 2 model_spec ModelSpec, 1 result ClassificationResult

Regression: 1 value float
RegressionResult: 1 regressions Regression[]
RegressionRequest: 1 model_spec ModelSpec, 2 input Input
RegressionResponse: 2 model_spec ModelSpec, 1 result RegressionResult

InferenceTask: 1 model_spec ModelSpec, 2 method_name string
InferenceResult: 1 model_spec ModelSpec, 2 classification_result ClassificationResult |result,
    3 regression_result RegressionResult |result
MultiInferenceRequest: 1 tasks InferenceTask[], 2 input Input
MultiInferenceResponse: 1 results InferenceResult[]

SignatureDefMap: 1 signature_def {tensorflow.SignatureDef}
GetModelMetadataRequest: 1 model_spec ModelSpec, 2 metadata_field string[]
GetModelMetadataResponse: 1 model_spec ModelSpec, 2 metadata {google.protobuf.Any}

service PredictionService: Classify ClassificationRequest ClassificationResponse,
    Regress RegressionRequest RegressionResponse, Predict PredictRequest PredictResponse,
    MultiInference MultiInferenceRequest MultiInferenceResponse,
    GetModelMetadata GetModelMetadataRequest GetModelMetadataResponse

StatusProto: 1 error_code tensorflow.error.Code, 2 error_message string
enum ModelVersionStatus.State: 0 UNKNOWN, 10 START, 20 LOADING, 30 AVAILABLE, 40 UNLOADING, 50 END
ModelVersionStatus: 1 version int64, 2 state ModelVersionStatus.State, 3 status StatusProto
GetModelStatusRequest: 1 model_spec ModelSpec
GetModelStatusResponse: 1 model_version_status ModelVersionStatus[]

FileSystemStoragePathSourceConfig.ServableVersionPolicy.Latest: 1 num_versions uint32
FileSystemStoragePathSourceConfig.ServableVersionPolicy.All:
FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific: 1 versions int64[]
FileSystemStoragePathSourceConfig.ServableVersionPolicy:
    100 latest FileSystemStoragePathSourceConfig.ServableVersionPolicy.Latest |policy_choice,
    101 all FileSystemStoragePathSourceConfig.ServableVersionPolicy.All |policy_choice,
    102 specific FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific |policy_choice
FileSystemStoragePathSourceConfig.ServableToMonitor: 1 servable_name string, 2 base_path string,
    4 servable_version_policy FileSystemStoragePathSourceConfig.ServableVersionPolicy
FileSystemStoragePathSourceConfig: 5 servables FileSystemStoragePathSourceConfig.ServableToMonitor[],
    3 file_system_poll_wait_seconds int64, 4 fail_if_zero_versions_at_startup bool,
    6 servable_versions_always_present bool

LogCollectorConfig: 1 type string, 2 filename_prefix string
SamplingConfig: 1 sampling_rate double
LoggingConfig: 1 log_collector_config LogCollectorConfig, 2 sampling_config SamplingConfig,
    3 custom_logging_config google.protobuf.Any

enum ModelType: 0 MODEL_TYPE_UNSPECIFIED, 1 TENSORFLOW, 2 OTHER
ModelConfig: 1 name string, 2 base_path string, 3 model_type ModelType, 4 model_platform string,
    7 model_version_policy FileSystemStoragePathSourceConfig.ServableVersionPolicy, 8 version_labels {int64},
    6 logging_config LoggingConfig
ModelConfigList: 1 config ModelConfig[]
ModelServerConfig: 1 model_config_list ModelConfigList |config, 2 custom_model_config google.protobuf.Any |config
ReloadConfigRequest: 1 config ModelServerConfig, 2 metric_names string[]
Metric: 1 name string, 2 int64_value_increase int64 |value_increase
ReloadConfigResponse: 1 status StatusProto, 2 metric Metric[]

service ModelService: GetModelStatus GetModelStatusRequest GetModelStatusResponse,
    HandleReloadConfigRequest ReloadConfigRequest ReloadConfigResponse

ClassifyLog: 1 request ClassificationRequest, 2 response ClassificationResponse
RegressLog: 1 request RegressionRequest, 2 response RegressionResponse
PredictLog: 1 request PredictRequest, 2 response PredictResponse
MultiInferenceLog: 1 request MultiInferenceRequest, 2 response MultiInferenceResponse
PredictionLog: 2 classify_log ClassifyLog |log_type, 3 regress_log RegressLog |log_type,
    6 predict_log PredictLog |log_type, 4 multi_inference_log MultiInferenceLog |log_type
"""
