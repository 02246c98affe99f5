//! A link against Redis' end of its connection.

use tokio::net::UnixStream;

use super::*;

/// A link, and Redis' end of its connection.
fn pair() -> (Link, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Link::new(Box::new(ours)), theirs)
}

async fn code<T>(work: impl Future<Output = Result<T, Error>>) -> &'static str {
    work.await.err().expect("it fails").code
}

#[tokio::test]
async fn commands_go_in_one_write_and_answers_may_come_in_pieces() {
    let (mut link, mut redis) = pair();
    let answering = tokio::spawn(async move {
        let mut heard = [0; 22];
        redis.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n");
        let large = "x".repeat(20 * INPUT_BYTES);
        let answers = format!("${}\r\n{large}\r\n:7\r\n", large.len());
        for piece in answers.as_bytes().chunks(1_000) {
            redis.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        redis
    });
    let answers = link.exchange(&Request::new(&[b"A"]).and(&[b"B"])).await.unwrap();
    let [Value::Bytes(large), Value::Integer(7)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(large.len(), 20 * INPUT_BYTES);
    drop(answering.await.unwrap());
}

#[tokio::test]
async fn a_large_reply_waits_for_a_permit_and_the_wait_does_not_count() {
    let (mut link, mut redis) = pair();
    let permits = Arc::new(Semaphore::new(1));
    link.limit_large_replies(permits.clone());
    let other = permits.clone().try_acquire_owned().unwrap();
    let large = "x".repeat(4 * SMALL_REPLY_BYTES);
    let answer = format!("${}\r\n{large}\r\n", large.len());
    let answering = tokio::spawn(async move {
        redis.write_all(answer.as_bytes()).await.unwrap();
        redis
    });
    let patience = Duration::from_millis(300);
    let asking = tokio::spawn(async move {
        let none = Duration::ZERO;
        let answers = link.exchange_blocking(&Request::new(&[b"A"]), none, patience).await;
        (link, answers)
    });
    tokio::time::sleep(2 * patience).await;
    assert!(!asking.is_finished(), "it waits for a permit");
    drop(other);
    let (mut link, answers) = asking.await.unwrap();
    assert_eq!(answers.unwrap(), [Value::Bytes(large.into())]);
    assert_eq!(permits.available_permits(), 0, "the reply may still be in memory");
    link.release_permit();
    assert_eq!(permits.available_permits(), 1);
    link.permit = permits.clone().try_acquire_owned().ok();
    let mut redis = answering.await.unwrap();
    redis.write_all(b":1\r\n").await.unwrap();
    link.exchange(&Request::new(&[b"B"])).await.unwrap();
    assert_eq!(permits.available_permits(), 1);
    let request = Request::new(&[b"C"]);
    let silent = link.exchange_blocking(&request, Duration::ZERO, Duration::from_millis(50));
    assert_eq!(code(silent).await, "TIMEOUT");
}

#[tokio::test]
async fn an_answer_over_its_limit_is_abandoned() {
    let (mut link, mut redis) = pair();
    let large = format!("$200\r\n{}\r\n", "x".repeat(200));
    redis.write_all(large.as_bytes()).await.unwrap();
    let request = Request::new(&[b"A"]).with_max_answer_bytes(100);
    assert_eq!(code(link.exchange(&request)).await, "TOOLARGE");
}

#[tokio::test]
async fn an_unasked_answer_and_nonsense_are_protocol_errors() {
    let (mut link, mut redis) = pair();
    redis.write_all(b":1\r\n:2\r\n").await.unwrap();
    assert_eq!(link.ask(&[b"PING"]).await.unwrap(), Value::Integer(1));
    assert_eq!(code(link.ask(&[b"PING"])).await, "PROTOCOL");
    let (mut link, mut redis) = pair();
    redis.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    assert_eq!(code(link.ask(&[b"PING"])).await, "PROTOCOL");
}

#[tokio::test]
async fn a_refusal_before_the_end_is_why_the_exchange_failed() {
    let (mut link, mut redis) = pair();
    redis.write_all(b"-ERR max number of clients reached\r\n").await.unwrap();
    drop(redis);
    let error = link.exchange(&Request::new(&[b"A"])).await.unwrap_err();
    assert_eq!(error.message, "ERR max number of clients reached");
    let (mut link, mut redis) = pair();
    redis.write_all(b"-UNBLOCKED state changed\r\n").await.unwrap();
    let answering = tokio::spawn(async move {
        redis.read_exact(&mut [0; 11]).await.unwrap();
    });
    let request = Request::new(&[b"A"]).and(&[b"B"]);
    assert_eq!(code(link.exchange(&request)).await, "UNBLOCKED");
    answering.await.unwrap();
}

#[tokio::test]
async fn a_closed_connection_is_noticed_between_and_within_exchanges() {
    let (mut link, mut redis) = pair();
    assert!(link.is_open().await);
    redis.write_all(b"$5\r\nhal").await.unwrap();
    drop(redis);
    assert_eq!(code(link.ask(&[b"GET"])).await, "IO");
    let (mut link, redis) = pair();
    drop(redis);
    let noticed = async {
        while link.is_open().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), noticed).await.expect("it is noticed");
}

const TOLD: &[u8] = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";

/// What Redis answers to what the link asks for, one after the other.
async fn tracked(answers: &'static [&'static [u8]]) -> (Link, UnixStream, bool) {
    let (mut link, mut redis) = pair();
    let answering = tokio::spawn(async move {
        for answer in answers {
            assert!(redis.read(&mut [0; 100]).await.unwrap() > 0);
            redis.write_all(answer).await.unwrap();
        }
        redis
    });
    let is_tracked = link.track().await.unwrap();
    (link, answering.await.unwrap(), is_tracked)
}

#[tokio::test]
async fn what_is_told_unasked_is_kept_wherever_it_comes() {
    let (mut link, mut redis, is_tracked) = tracked(&[b"%1\r\n+proto\r\n:3\r\n", b"+OK\r\n"]).await;
    assert!(is_tracked);
    redis.write_all(&[TOLD, &TOLD[..9]].concat()).await.unwrap();
    link.pushed().await.unwrap();
    assert_eq!(link.take_pushes().len(), 1);
    let half = tokio::time::timeout(Duration::from_millis(20), link.pushed()).await;
    half.expect_err("the rest is to come");
    redis.write_all(&[&TOLD[9..], b"_\r\n", TOLD, b":7\r\n"].concat()).await.unwrap();
    let answers = link.exchange(&Request::new(&[b"A"]).and(&[b"B"])).await.unwrap();
    assert_eq!(answers, [Value::Nil, Value::Integer(7)]);
    assert_eq!(link.take_pushes().len(), 2);
    redis.write_all(b":1\r\n").await.unwrap();
    assert_eq!(code(link.pushed()).await, "PROTOCOL");
}

#[tokio::test]
async fn a_server_that_does_not_tell_of_keys_is_spoken_to_as_before() {
    let (mut link, mut redis, is_tracked) = tracked(&[b"-ERR unknown command\r\n"]).await;
    assert!(!is_tracked);
    redis.write_all(b"_\r\n").await.unwrap();
    assert_eq!(code(link.ask(&[b"A"])).await, "PROTOCOL", "it was to speak RESP2");
    let denied: &[&[u8]] = &[b"%0\r\n", b"-NOPERM no\r\n", b"*0\r\n"];
    let (mut link, mut redis, is_tracked) = tracked(denied).await;
    assert!(!is_tracked);
    redis.write_all(TOLD).await.unwrap();
    assert_eq!(code(link.ask(&[b"A"])).await, "PROTOCOL");
}
