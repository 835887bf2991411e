"""Fills a bucket to try this with: `python -m s3_fan_out.fill BUCKET NUMBER`. Makes the bucket if need be."""

import sys
from typing import Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]


def main(bucket: str, number: int) -> None:
    s3 = cast(Any, boto3).client("s3")
    s3.create_bucket(Bucket=bucket)
    for index in range(number):
        s3.put_object(Bucket=bucket, Key=f"logs/{index:05}.txt", Body=f"line {index}\n".encode() * 100)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
