//! Reading the body of a request, within limits: it has a length or is chunked, is JSON, is not too large, and comes in time.

use std::time::Duration;

use axum::Json;
use axum::extract::FromRequest;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::routes::Rejection;

/// Largest body in bytes: a policy of the largest size with its includes.
pub const BODY_BYTES: usize = 32 << 20;

/// The value that a body holds.
///
/// # Errors
/// What is wrong with it.
pub async fn read<T: DeserializeOwned>(request: Request, limit: Duration) -> Result<T, Rejection> {
    check_length(request.headers())?;
    match tokio::time::timeout(limit, Json::<T>::from_request(request, &())).await {
        Ok(Ok(Json(body))) => Ok(body),
        Ok(Err(rejection)) => Err(Rejection(rejection.status(), rejection.body_text())),
        Err(_) => {
            let message = format!("the body did not come within {} seconds", limit.as_secs_f32());
            Err(Rejection(StatusCode::REQUEST_TIMEOUT, message))
        }
    }
}

/// Told before anything is read.
fn check_length(headers: &HeaderMap) -> Result<(), Rejection> {
    let length = headers.get(header::CONTENT_LENGTH);
    if length.is_none() && !headers.contains_key(header::TRANSFER_ENCODING) {
        let message = "the request has no body: give one, with its Content-Length".to_owned();
        return Err(Rejection(StatusCode::LENGTH_REQUIRED, message));
    }
    // HTTP itself refuses what is no number.
    let bytes = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = bytes.filter(|bytes| *bytes > BODY_BYTES as u64) {
        let message = format!("a body of {bytes} bytes is larger than {BODY_BYTES}");
        return Err(Rejection(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(())
}
