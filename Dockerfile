# docker build -t vqvae2 . && docker run --rm -v "$PWD/runs:/vqvae2/runs" vqvae2
FROM python:3.11-slim
WORKDIR /vqvae2
COPY . /source
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir -c /source/constraints.txt /source
CMD ["vqvae2", "demo"]
